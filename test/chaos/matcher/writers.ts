import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import type { FacesDb } from "@lim/faces-db";
import { chanceVector } from "../feeder.ts";
import { type Findings, textOf } from "../findings.ts";
import type { Chances } from "../random.ts";
import { ListTruth, type OpenChange } from "./truth.ts";

const pauseMs = { least: 20, most: 250 } as const;
const mostFacesOfChange = 12;
const chunkFaces = 500;
const retryMs = 200;
/** Faces that were unlinked and may be linked again. */
const mostUnlinked = 200;

export interface WriterDeps {
  db: FacesDb;
  chances: Chances;
  findings: Findings;
  dim: number;
  descriptorVersion: number;
  faces: { least: number; most: number };
}

/** The only writer of one list: it knows which revision did what. */
export interface Writer {
  readonly truth: ListTruth;
  /** Changes the list until the signal fires. */
  run(signal: AbortSignal): Promise<void>;
  /** Many new faces in one transaction. */
  burst(count: number): Promise<void>;
}

export async function createWriter(deps: WriterDeps): Promise<Writer> {
  const { db, chances, findings, dim, descriptorVersion, faces: sizes } = deps;
  const { listId } = await db.createList({ name: `chaos ${randomUUID()}` });
  const truth = new ListTruth(listId);
  const unlinked: { faceId: string; vector: Float32Array }[] = [];
  let turn: Promise<unknown> = Promise.resolve();
  /** Changes one after another: then a revision belongs to one of them. */
  const inTurn = <T>(work: () => Promise<T>): Promise<T> => {
    const result = turn.then(work);
    turn = result.catch(() => {});
    return result;
  };
  const revisionNow = async (): Promise<number> => {
    for (;;)
      try {
        const [state] = await db.listStates({ listIds: [listId] });
        if (state) return state.revision;
        throw new Error(`list ${listId} is gone`);
      } catch (error) {
        findings.count("writers", `revisions that could not be read: ${textOf(error).slice(0, 80)}`);
        await sleep(retryMs);
      }
  };
  /** True where it was committed: by the list's revision, whatever became of the connection. */
  const write = async (what: string, change: OpenChange, work: () => Promise<unknown>): Promise<boolean> => {
    const before = truth.revision;
    const failed = await work().then(
      () => false,
      () => true,
    );
    const revision = await revisionNow();
    if (revision > before) change.committed(revision);
    else change.undone();
    findings.count("writers", failed ? `${what} that failed` : what);
    return revision > before;
  };
  const put = (what: string, faces: readonly { faceId: string; vector: Float32Array }[]) =>
    inTurn(() =>
      write(what, truth.begin(faces.map((face) => ({ ...face, kind: "linked" }))), () =>
        db.putFaces({ listIds: [listId], descriptorVersion, faces }),
      ),
    );
  const newFaces = (count: number) =>
    Array.from({ length: count }, () => ({ faceId: randomUUID(), vector: chanceVector(chances, dim) }));
  const drawLinked = (count: number): { faceId: string; vector: Float32Array }[] => {
    const drawn = new Map<string, Float32Array>();
    for (let i = 0; i < count; i++) {
      const faceId = truth.linkedAt(chances.whole(Math.max(1, truth.faceCount)));
      const vector = faceId === undefined ? undefined : truth.vectorOf(faceId);
      if (faceId !== undefined && vector) drawn.set(faceId, vector);
    }
    return [...drawn].map(([faceId, vector]) => ({ faceId, vector }));
  };
  const remove = (kind: "unlinked" | "deleted", count: number) =>
    inTurn(async () => {
      const faces = drawLinked(count);
      const faceIds = faces.map(({ faceId }) => faceId);
      const change = truth.begin(faceIds.map((faceId) => ({ faceId, kind: "gone" })));
      const isDone = await write(kind, change, () =>
        kind === "unlinked" ? db.unlinkFaces({ listId, faceIds }) : db.deleteFaces({ faceIds }),
      );
      if (isDone && kind === "unlinked") unlinked.push(...faces.slice(0, mostUnlinked - unlinked.length));
    });
  const relink = () =>
    inTurn(async () => {
      const faces = unlinked.splice(0, 1 + chances.whole(mostFacesOfChange));
      if (faces.length === 0) return;
      const change = truth.begin(faces.map((face) => ({ ...face, kind: "linked" })));
      const faceIds = faces.map(({ faceId }) => faceId);
      await write("linked again", change, () => db.linkFaces({ listId, faceIds }));
    });
  const change = async () => {
    const some = 1 + chances.whole(mostFacesOfChange);
    const dice = chances.between(0, 1);
    if (truth.faceCount > sizes.most || (dice < 0.25 && truth.faceCount > sizes.least))
      return remove("unlinked", some);
    if (dice < 0.35 && truth.faceCount > sizes.least) return remove("deleted", some);
    if (dice < 0.5) return relink();
    if (dice < 0.7)
      return put(
        "replaced",
        drawLinked(some).map(({ faceId }) => ({ faceId, vector: chanceVector(chances, dim) })),
      );
    return put("linked", newFaces(some));
  };
  const start = Math.round((sizes.least + sizes.most) / 2);
  for (let at = 0; at < start; at += chunkFaces)
    await put("linked at first", newFaces(Math.min(chunkFaces, start - at)));
  return {
    truth,
    burst: async (count) => void (await put("bursts", newFaces(count))),
    async run(signal) {
      while (!signal.aborted) {
        await change();
        await sleep(chances.between(pauseMs.least, pauseMs.most), undefined, { signal }).catch(() => {});
      }
      await turn;
    },
  };
}
