import type { Socket } from "node:net";
import type { FastifyInstance } from "fastify";
import { httpLimits } from "./request-checks.ts";

/**
 * Keeps a closing application from waiting for clients that ask nothing: connections without a request end at once,
 * others with their answer, all after a grace. The server itself only knows those as idle that have asked something
 * before, and would wait for a client that merely connected.
 */
export function endConnectionsOnClose(app: FastifyInstance): void {
  const waiting = new Set<Socket>();
  let isClosing = false;
  app.server.on("connection", (socket: Socket) => {
    waiting.add(socket);
    socket.once("close", () => waiting.delete(socket));
  });
  app.server.on("request", ({ socket }, response) => {
    waiting.delete(socket);
    response.once("close", () => {
      if (isClosing) socket.destroySoon();
      else if (!socket.destroyed) waiting.add(socket);
    });
  });
  let timer: NodeJS.Timeout | undefined;
  app.addHook("preClose", async () => {
    isClosing = true;
    for (const socket of waiting) socket.destroy();
    timer = setTimeout(() => app.server.closeAllConnections(), httpLimits.closeGraceMs);
  });
  app.addHook("onClose", async () => clearTimeout(timer));
}
