# Two stages: the build stage has npm and the compiler, the runtime stage has neither, nor a shell.
# Both bases are arguments, so that a mirror or a pinned digest can stand in.
ARG BUILD_IMAGE=node:24.21.0-bookworm-slim
ARG RUNTIME_IMAGE=gcr.io/distroless/nodejs24-debian12:nonroot

# What is built is the same for every platform, so it is built on the platform that builds.
FROM --platform=$BUILDPLATFORM ${BUILD_IMAGE} AS build
WORKDIR /app
COPY package.json package-lock.json ./
# No dependency needs its install script here: the one that has one brings a Node, and the base has that.
RUN npm ci --ignore-scripts --no-audit --no-fund
COPY rolldown.config.ts ./
COPY src ./src
# All that runs is in dist. Of the packages whose code is in there stay the manifests, by which scanners know them, and the
# licences.
RUN npm run build \
 && npm prune --omit=dev --omit=optional --ignore-scripts --no-audit --no-fund \
 && rm -rf node_modules/.bin node_modules/.cache node_modules/.package-lock.json \
 && find node_modules -type f ! -name package.json ! -iname 'licen[cs]e*' ! -iname 'notice*' -exec rm -f {} + \
 && { find node_modules -depth -mindepth 1 -type d -exec rmdir {} + 2> /dev/null || true; }

FROM ${RUNTIME_IMAGE}
ARG VERSION=0.0.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="bearward" \
      org.opencontainers.image.description="Token-verification sidecar for Kubernetes" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# Owned by root, the folder too: the process cannot change its own code.
USER 0:0
WORKDIR /app
COPY --from=build --chown=0:0 /app/package.json ./
COPY --from=build --chown=0:0 /app/node_modules ./node_modules
COPY --from=build --chown=0:0 /app/dist ./dist
# Node does not shrink its heap to a small memory limit by itself and would be killed without a word. A small young
# generation and a single arena of malloc keep resident memory down. Variables, so that a deployment can override them.
ENV NODE_ENV=production \
    NODE_OPTIONS="--max-old-space-size-percentage=60 --max-semi-space-size=4" \
    MALLOC_ARENA_MAX=1
# A number, because a kubelet cannot tell whether a named user is root.
USER 65532:65532
EXPOSE 8080 9090
STOPSIGNAL SIGTERM
# For Docker and Compose; Kubernetes looks at its own probes alone.
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s \
  CMD ["/nodejs/bin/node", "/app/dist/main.js", "probe", "ready", "--config", "/etc/bearward/bearward.yaml"]
ENTRYPOINT ["/nodejs/bin/node", "/app/dist/main.js"]
CMD ["serve", "--config", "/etc/bearward/bearward.yaml"]
