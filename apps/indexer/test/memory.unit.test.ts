import { describe, expect, it } from "vitest";
import { oomKillFiles, parseOomKills, parseResident } from "../src/memory.ts";

it("resident memory is read whatever the page size", () => {
  expect(parseResident("Name:\tnode\nVmHWM:\t  999 kB\nVmRSS:\t   51200 kB\n")).toBe(51_200 * 1024);
  expect(parseResident("Name:\tkthreadd\n")).toBeUndefined();
});

describe("kills by the kernel", () => {
  it.each([
    ["version 2", "low 0\nhigh 0\nmax 14\noom 3\noom_kill 2\noom_group_kill 0\nsock_throttled 0\n", 2],
    ["version 1", "oom_kill_disable 0\nunder_oom 0\noom_kill 7\n", 7],
    ["version 1 before Linux 4.13", "oom_kill_disable 0\nunder_oom 0\n", undefined],
    ["nothing", "", undefined],
  ])("are read from the file of %s", (_, text, kills) => {
    expect(parseOomKills(text)).toBe(kills);
  });

  const v1 = [
    "12:pids:/docker/4f2a",
    "9:name=systemd:/docker/4f2a",
    "5:memory:/docker/4f2a",
    "3:cpu,cpuacct:/docker/4f2a",
    "",
  ].join("\n");
  const mountsOf = (...lines: string[]) =>
    [
      "23 1 254:0 / / rw,relatime - ext4 /dev/vda rw",
      "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755",
      ...lines,
      "",
    ].join("\n");
  const hybridMounts = mountsOf(
    "33 31 0:30 / /sys/fs/cgroup/cpuacct rw,relatime - cgroup cgroup rw,cpuacct",
    "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:12 - cgroup cgroup rw,memory",
    "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw,nsdelegate",
  );
  const v2Mounts = mountsOf(
    "30 23 0:26 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:4 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot",
  );

  it.each([
    [
      "version 2",
      "0::/system.slice/lim-indexer.service\n",
      v2Mounts,
      ["/sys/fs/cgroup/system.slice/lim-indexer.service/memory.events", "/sys/fs/cgroup/memory.events"],
    ],
    ["version 2 in a container", "0::/\n", v2Mounts, ["/sys/fs/cgroup/memory.events"]],
    [
      "version 2 in a container that sees the host's path",
      "0::/system.slice/docker-4f2a.scope\n",
      mountsOf("30 23 0:26 /system.slice/docker-4f2a.scope /sys/fs/cgroup ro,nosuid - cgroup2 cgroup rw"),
      ["/sys/fs/cgroup/memory.events"],
    ],
    [
      "a group outside of what is mounted",
      "0::/../build.scope\n",
      v2Mounts,
      ["/sys/fs/cgroup/memory.events"],
    ],
    [
      "version 1 beside version 2",
      "4:memory:/services/4f2a\n1:cpu:/\n0::/\n",
      hybridMounts,
      ["/sys/fs/cgroup/memory/services/4f2a/memory.oom_control", "/sys/fs/cgroup/memory/memory.oom_control"],
    ],
    [
      "version 1 in a container",
      v1,
      mountsOf(
        "35 31 0:32 /docker/4f2a /sys/fs/cgroup/memory ro,nosuid,relatime master:15 - cgroup cgroup rw,memory",
      ),
      ["/sys/fs/cgroup/memory/memory.oom_control"],
    ],
    [
      "version 1 below a container's own group",
      "5:memory:/docker/4f2a/build\n",
      mountsOf("35 31 0:32 /docker/4f2a /sys/fs/cgroup/memory ro,nosuid - cgroup cgroup rw,memory"),
      ["/sys/fs/cgroup/memory/build/memory.oom_control", "/sys/fs/cgroup/memory/memory.oom_control"],
    ],
    [
      "version 1 with another container's mount",
      v1,
      mountsOf("35 31 0:32 /docker/4f2 /sys/fs/cgroup/memory ro,nosuid - cgroup cgroup rw,memory"),
      ["/sys/fs/cgroup/memory/memory.oom_control"],
    ],
    [
      "version 1, controllers together, a blank in the path",
      "5:cpu,memory:/a b\n",
      mountsOf("35 31 0:32 / /mnt/c\\040g rw - cgroup cgroup rw,cpu,memory"),
      ["/mnt/c g/a b/memory.oom_control", "/mnt/c g/memory.oom_control"],
    ],
    ["version 1 that is not mounted", v1, v2Mounts, []],
    ["no control of memory", "3:cpu:/\n", hybridMounts, []],
    ["texts of something else", "no\n", "no\n", []],
  ])("are looked for in the right file: %s", (_, membership, mounts, files) => {
    expect(oomKillFiles(membership, mounts)).toEqual(files);
  });
});
