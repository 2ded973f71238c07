# Two stages: the build stage has npm and the compiler, the runtime stage has neither, nor a shell.
# Both bases are arguments, so that a mirror or a pinned digest can stand in.
ARG BUILD_IMAGE=node:24.21.0-bookworm-slim
ARG RUNTIME_IMAGE=gcr.io/distroless/nodejs24-debian12:nonroot

FROM ${BUILD_IMAGE} AS build
WORKDIR /app
COPY package.json package-lock.json ./
# No dependency needs its install script here: the one that has one brings a Node, and the base has that.
RUN npm ci --ignore-scripts --no-audit --no-fund
COPY tsconfig.json tsconfig.build.json ./
COPY src ./src
RUN npm run build && npm prune --omit=dev --ignore-scripts --no-audit --no-fund

FROM ${RUNTIME_IMAGE}
ARG VERSION=0.0.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="bearward" \
      org.opencontainers.image.description="Token-verification sidecar for Kubernetes" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
WORKDIR /app
# Owned by root: the process cannot change its own code.
COPY --from=build --chown=0:0 /app/package.json ./
COPY --from=build --chown=0:0 /app/node_modules ./node_modules
COPY --from=build --chown=0:0 /app/dist ./dist
# Node does not shrink its heap to a small memory limit by itself and would be killed without a word. A small young
# generation keeps resident memory down. As a variable, so that a deployment can override it.
ENV NODE_ENV=production \
    NODE_OPTIONS="--max-old-space-size-percentage=60 --max-semi-space-size=2"
# A number, because a kubelet cannot tell whether a named user is root.
USER 65532:65532
EXPOSE 8080 9090
STOPSIGNAL SIGTERM
ENTRYPOINT ["/nodejs/bin/node", "--enable-source-maps", "/app/dist/main.js"]
CMD ["serve", "--config", "/etc/bearward/bearward.yaml"]
