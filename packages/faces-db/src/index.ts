import { Database } from "./database.ts";
import * as faces from "./faces.ts";
import * as feed from "./feed.ts";
import { importRows } from "./import.ts";
import * as lists from "./lists.ts";
import { migrate } from "./migrate.ts";
import type { FacesDb } from "./port.ts";
import { openSnapshot } from "./snapshot.ts";

export { facesDbLimits } from "./limits.ts";
export * from "./port.ts";
export { type DatabaseReport, type MigrationState, readDatabaseReport } from "./server-report.ts";

/** Opens a pool; connects lazily. */
export function openFacesDb(options: {
  connectionString: string;
  maxConnections?: number;
  applicationName?: string;
}): FacesDb {
  const database = new Database(options);
  return {
    migrate: (call) => migrate(database, call),
    ping: (call) => database.run(call?.signal, async (session) => void (await session.query("SELECT 1"))),
    createList: (call) => lists.createList(database, call),
    deleteList: (call) => lists.deleteList(database, call),
    findListByName: (call) => lists.findListByName(database, call),
    listStates: (call) => lists.listStates(database, call),
    putFaces: (call) => faces.putFaces(database, call),
    linkFaces: (call) => faces.linkFaces(database, call),
    unlinkFaces: (call) => faces.unlinkFaces(database, call),
    deleteFaces: (call) => faces.deleteFaces(database, call),
    descriptorsOf: (call) => faces.descriptorsOf(database, call),
    externalIdsOf: (call) => faces.externalIdsOf(database, call),
    openSnapshot: (call) => openSnapshot(database, call),
    readPacket: (call) => feed.readPacket(database, call),
    readPackets: (call) => feed.readPackets(database, call),
    countChanges: (call) => feed.countChanges(database, call),
    removalsOf: (call) => feed.removalsOf(database, call),
    compactFeed: (call) => feed.compactFeed(database, call),
    feedsWithOldRows: (call) => feed.feedsWithOldRows(database, call),
    newHistory: (call) => feed.newHistory(database, call),
    importRows: (call) => importRows(database, call),
    close: () => database.close(),
  };
}
