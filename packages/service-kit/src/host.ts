import { networkInterfaces } from "node:os";

/** Host name or address under which others reach this process: the setting, else the first non-internal IPv4, else 127.0.0.1. */
export function guessHost(setting: string | undefined): string {
  if (setting) return setting;
  for (const addresses of Object.values(networkInterfaces()))
    for (const address of addresses ?? [])
      if (address.family === "IPv4" && !address.internal) return address.address;
  return "127.0.0.1";
}
