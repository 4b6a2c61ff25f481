import { execFileSync } from "node:child_process";
import { chmodSync, mkdtempSync, rmSync } from "node:fs";
import { join } from "node:path";

const writableMode = 0o755;
const readOnlyMode = 0o555;
const chattrTimeoutMs = 5_000;

const active = new Set<() => void>();
let exitHookSet = false;

/** A run that is ended in between must leave folders that can be deleted. */
function setExitHook(): void {
  if (exitHookSet) return;
  exitHookSet = true;
  process.on("exit", () => {
    for (const undo of active) undo();
  });
}

function isWritable(folder: string): boolean {
  try {
    rmSync(mkdtempSync(join(folder, "probe-")), { recursive: true });
    return true;
  } catch {
    return false;
  }
}

/**
 * From now on nothing can be made, renamed or removed in the folder, until the function that is returned is called.
 * Undefined where there is no way to do it here: permissions mean nothing to root, and not every file system has the
 * immutable attribute.
 */
export function makeReadOnly(folder: string): (() => void) | undefined {
  const attribute = (sign: "+" | "-") =>
    execFileSync("chattr", [`${sign}i`, folder], { stdio: "ignore", timeout: chattrTimeoutMs });
  const ways = [
    { on: () => chmodSync(folder, readOnlyMode), off: () => chmodSync(folder, writableMode) },
    { on: () => attribute("+"), off: () => attribute("-") },
  ];
  setExitHook();
  for (const { on, off } of ways) {
    const undo = () => {
      active.delete(undo);
      try {
        off();
      } catch {
        // The folder is gone.
      }
    };
    active.add(undo);
    try {
      on();
    } catch {
      undo();
      continue;
    }
    if (!isWritable(folder)) return undo;
    undo();
  }
  return undefined;
}
