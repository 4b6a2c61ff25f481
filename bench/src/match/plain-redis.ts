import { createRequire } from "node:module";

/** What the plain echo uses of the client. */
export interface PlainRedis {
  duplicate(): PlainRedis;
  pipeline(): PlainPipeline;
  xadd(key: string, ...args: (string | Buffer)[]): Promise<string | null>;
  xgroup(...args: string[]): Promise<unknown>;
  xread(...args: (string | number)[]): Promise<[string, [string, string[]][]][] | null>;
  xreadgroupBuffer(...args: (string | number)[]): Promise<[Buffer, [Buffer, Buffer[]][]][] | null>;
  disconnect(): void;
}

export interface PlainPipeline {
  xadd(key: string, ...args: (string | Buffer)[]): this;
  xack(key: string, group: string, ...ids: string[]): this;
  xdel(key: string, ...ids: string[]): this;
  exec(): Promise<unknown>;
}

/** The client that the streams' own code is made with, as it comes: what is compared is what is done with it. */
export function connectPlain(url: string, options: { autoPipelining: boolean }): PlainRedis {
  const require = createRequire(import.meta.resolve("@lim/coordination"));
  const { Redis } = require("ioredis") as { Redis: new (url: string, options: object) => PlainRedis };
  return new Redis(url, { enableAutoPipelining: options.autoPipelining });
}
