# syntax=docker/dockerfile:1
# Images of LIM, one target each: index-manager, indexer, indexed-matcher, cli.
#   docker build --target indexer --tag lim-indexer .
# The same release as the `node` package of package.json, with which everything is tested.
ARG NODE_VERSION=24.21.0

FROM node:${NODE_VERSION}-bookworm-slim AS manifests
WORKDIR /src
COPY package.json package-lock.json .npmrc ./
COPY apps/index-manager/package.json apps/index-manager/
COPY apps/indexed-matcher/package.json apps/indexed-matcher/
COPY apps/indexer/package.json apps/indexer/
COPY packages/contracts/package.json packages/contracts/
COPY packages/coordination/package.json packages/coordination/
COPY packages/faces-db/package.json packages/faces-db/
COPY packages/hnsw/package.json packages/hnsw/
COPY packages/local-servers/package.json packages/local-servers/
COPY packages/search-plugin/package.json packages/search-plugin/
COPY packages/service-kit/package.json packages/service-kit/
COPY packages/testkit/package.json packages/testkit/
COPY packages/vector-index/package.json packages/vector-index/
COPY index-storage/package.json index-storage/
COPY cli/package.json cli/
COPY bench/package.json bench/
COPY test/package.json test/

# Nothing is compiled natively here, so no install script has to run; types and the WebAssembly compiler are enough.
FROM manifests AS build
RUN npm ci --ignore-scripts
COPY . .
RUN node packages/hnsw/scripts/assemble.mjs
RUN node_modules/.bin/tsc -b apps/index-manager apps/indexer apps/indexed-matcher cli
RUN node scripts/image-files.mjs /out/index-manager apps/index-manager \
  && node scripts/image-files.mjs /out/indexer apps/indexer \
  && node scripts/image-files.mjs /out/indexed-matcher apps/indexed-matcher \
  && node scripts/image-files.mjs /out/cli cli

# The only stages with a compiler: hnswlib-node has no prebuilt module. Its headers are the base image's own.
FROM manifests AS compiler
RUN apt-get update && apt-get install -y --no-install-recommends g++ make python3
ENV npm_config_nodedir=/usr/local

FROM compiler AS service-modules
RUN npm ci --omit=dev --workspace=apps/index-manager --workspace=apps/indexer --workspace=apps/indexed-matcher
RUN rm -rf node_modules/hnswlib-node/build/Release/obj.target node_modules/hnswlib-node/build/Release/.deps

FROM compiler AS cli-modules
RUN npm ci --omit=dev --workspace=cli
RUN rm -rf node_modules/hnswlib-node/build/Release/obj.target node_modules/hnswlib-node/build/Release/.deps

FROM node:${NODE_VERSION}-bookworm-slim AS runtime
ENV NODE_ENV=production LIM_STORAGE_ROOT=/var/lib/lim/index-storage
# A new named volume takes owner and mode from the folder that it is mounted on.
RUN mkdir -p /var/lib/lim/index-storage && chown node:node /var/lib/lim/index-storage
WORKDIR /app
COPY scripts/image-health.mjs ./health.mjs
USER node

FROM runtime AS index-manager
COPY --from=service-modules /src/node_modules ./node_modules
COPY --from=build /out/index-manager ./
ENV LIM_MANAGER_PORT=5190
EXPOSE 5190
# Liveness, which asks nothing outside: whoever restarts unhealthy containers must not do so because Redis is away.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 CMD ["node", "health.mjs", "livez"]
CMD ["node", "--enable-source-maps", "apps/index-manager/dist/main.js"]

FROM runtime AS indexer
COPY --from=service-modules /src/node_modules ./node_modules
COPY --from=build /out/indexer ./
ENV LIM_INDEXER_PORT=5180
EXPOSE 5180
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 CMD ["node", "health.mjs", "livez"]
CMD ["node", "--enable-source-maps", "apps/indexer/dist/main.js"]

FROM runtime AS indexed-matcher
COPY --from=service-modules /src/node_modules ./node_modules
COPY --from=build /out/indexed-matcher ./
ENV LIM_MATCHER_PORT=5200
EXPOSE 5200
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 CMD ["node", "health.mjs", "livez"]
CMD ["node", "--enable-source-maps", "apps/indexed-matcher/dist/main.js"]

# A command, not a service: it has nothing to be asked for its health.
FROM runtime AS cli
COPY --from=cli-modules /src/node_modules ./node_modules
COPY --from=build /out/cli ./
COPY scripts/demo-faces.mjs ./
HEALTHCHECK NONE
ENTRYPOINT ["node", "cli/bin/lim.js"]
CMD ["--help"]
