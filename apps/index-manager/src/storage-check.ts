import { access, constants } from "node:fs/promises";
import { LimError } from "@lim/contracts";

/** Throws storage_unavailable where the folder is away: listing it would find no index, and no fault. */
export async function assertStorageThere(root: string): Promise<void> {
  try {
    await access(root, constants.R_OK | constants.W_OK);
  } catch (thrown) {
    const { code } = thrown as NodeJS.ErrnoException;
    throw new LimError("storage_unavailable", `${root}: ${code}`, { cause: thrown });
  }
}
