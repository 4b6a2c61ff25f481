import { once } from "node:events";
import { connect } from "node:net";

/** Seconds of processor that a manager's process has used, by its own metrics. */
export async function managerCpuSeconds(url: string): Promise<number> {
  const text = await (await fetch(`${url}/metrics`)).text();
  return numberIn(text, /^process_cpu_seconds_total ([\d.e+-]+)/m);
}

/** The same of a Redis without a password, children not counted. */
export async function redisCpuSeconds(redisUrl: string): Promise<number> {
  const { hostname, port } = new URL(redisUrl);
  const socket = connect(Number(port || 6379), hostname).setEncoding("utf8");
  try {
    socket.write("INFO cpu\r\n");
    let text = "";
    while (!text.includes("used_cpu_user_children")) text += String((await once(socket, "data"))[0]);
    return numberIn(text, /^used_cpu_sys:([\d.]+)/m) + numberIn(text, /^used_cpu_user:([\d.]+)/m);
  } finally {
    socket.destroy();
  }
}

function numberIn(text: string, pattern: RegExp): number {
  const value = Number(pattern.exec(text)?.[1]);
  if (Number.isNaN(value)) throw new Error(`${pattern} is not in: ${text.slice(0, 200)}`);
  return value;
}
