import { describe, expect, it } from "vitest";
import { parseRedisUrl, redisPlace } from "../src/redis-url.ts";

describe("a Redis URL", () => {
  it.each([
    ["redis://h", { kind: "single", tls: false, nodes: [{ host: "h", port: 6379 }], db: 0 }],
    [
      "rediss://u:p%40%2Fq@[::1]:7/3",
      {
        kind: "single",
        tls: true,
        username: "u",
        password: "p@/q",
        nodes: [{ host: "::1", port: 7 }],
        db: 3,
      },
    ],
    [
      "redis-sentinel://:secret@a,b:5/my%20name?db=2&sentinel_password=s%26t+%2B",
      {
        kind: "sentinel",
        tls: false,
        password: "secret",
        nodes: [
          { host: "a", port: 26379 },
          { host: "b", port: 5 },
        ],
        name: "my name",
        db: 2,
        sentinelPassword: "s&t++",
      },
    ],
    [
      "rediss-cluster://u:p@a:1,b/",
      {
        kind: "cluster",
        tls: true,
        username: "u",
        password: "p",
        nodes: [
          { host: "a", port: 1 },
          { host: "b", port: 6379 },
        ],
      },
    ],
  ])("%s says kind, servers and credentials", (url, target) => {
    expect(parseRedisUrl(url)).toEqual(target);
    expect(redisPlace(parseRedisUrl(url))).not.toMatch(/secret|u:p|p@/);
  });

  it.each([
    "",
    "http://h",
    "redis:",
    "redis://",
    "redis://s3cret@:99999999",
    "redis://s3cret@h:0",
    "redis://h/base",
    "redis://s3cret@a,b",
    "redis://h?family=6",
    "redis://%zz:s3cret@h",
    "redis-sentinel://s3cret@a:1",
    "redis-sentinel://a:1/n?password=s3cret",
    "redis-cluster://a:1,",
    "redis-cluster://s3cret@a:1/2",
    "redis-clusters://a:1",
  ])("%j is refused without being repeated", (url) => {
    let failure: unknown;
    try {
      parseRedisUrl(url);
    } catch (thrown) {
      failure = thrown;
    }
    expect(failure).toMatchObject({ errorName: "bad_settings" });
    expect(String(failure)).not.toContain("s3cret");
  });
});
