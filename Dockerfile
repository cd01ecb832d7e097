# The images of both services: docker build --target auth-service . and --target task-service .
#
# The tag is exact, and the pipeline that publishes adds the digest: it can ask a registry, which a checkout cannot.
ARG PYTHON_IMAGE=docker.io/library/python:3.13.15-slim-bookworm

# --- build: the project's wheel, of which every image takes its part
FROM ${PYTHON_IMAGE} AS build
WORKDIR /src
COPY constraints/build.txt constraints/
RUN python3 -m venv /build \
    && /build/bin/pip install --quiet --disable-pip-version-check --no-cache-dir --require-hashes --only-binary :all: -r constraints/build.txt
COPY pyproject.toml hatch_build.py README.md LICENSE ./
COPY proto proto
COPY servicekit servicekit
COPY auth_service auth_service
COPY task_service task_service
COPY gateway gateway
# pip builds in an environment without the network's say: what it needs is here already, with known hashes.
RUN /build/bin/pip wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation --no-index --wheel-dir /dist .

# --- dependencies: what both services need, one layer that they share
FROM build AS dependencies
COPY constraints/services.txt constraints/
RUN python3 -m venv --without-pip /opt/venv \
    && /build/bin/pip --python /opt/venv/bin/python install --quiet --disable-pip-version-check --no-cache-dir --no-compile \
       --require-hashes --only-binary :all: -r constraints/services.txt
# Compiled here, since the root is read-only where it runs; by the hash, so that the times of files do not matter.
RUN /opt/venv/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/venv/lib

# --- application: the packages of one service
FROM dependencies AS application
RUN /build/bin/pip install --quiet --disable-pip-version-check --no-deps --no-index --no-compile --target /app /dist/*.whl \
    && rm -r /app/gateway \
    && python3 -m compileall -q -j 0 --invalidation-mode unchecked-hash /app

FROM application AS auth-application
RUN rm -r /app/task_service

FROM application AS task-application
RUN rm -r /app/auth_service

# --- runtime: Python and the dependencies, without anything that installs or builds
FROM ${PYTHON_IMAGE} AS runtime
# pip comes with the base, and its source with ensurepip: neither is of use to a service, both are to a thief.
RUN ["python3", "-c", "import ensurepip, glob, os, pip, shutil; \
folders = [os.path.dirname(module.__file__) for module in (pip, ensurepip)]; \
[shutil.rmtree(folder) for folder in folders + glob.glob(folders[0] + '-*.dist-info')]; \
[os.remove(path) for path in glob.glob('/usr/local/bin/pip*') + glob.glob('/usr/bin/pip*')]"]
COPY --from=dependencies /opt/venv /opt/venv
# PYTHONSAFEPATH: nothing is imported from where the process happens to stand.
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONPATH=/app \
    PYTHONSAFEPATH=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
WORKDIR /app
# A number, so that Kubernetes can tell that it is not root; one that no distribution gives to anybody.
USER 65532:65532
STOPSIGNAL SIGTERM
ARG VERSION=0.0.0
ARG REVISION=unknown
LABEL org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.vendor="task-manager"

# --- the two images. `run` serves; `migrate` and, in auth-service, `keys list` are arguments as well
FROM runtime AS auth-service
LABEL org.opencontainers.image.title="auth-service" \
      org.opencontainers.image.description="Accounts, sessions and signing keys of task-manager"
COPY --from=auth-application /app /app
EXPOSE 50051 9091
# Ready, not merely alive: it is what others wait for. An engine restarts nothing for it.
HEALTHCHECK --interval=5s --timeout=4s --start-period=30s --retries=3 CMD ["python", "-m", "servicekit.process.healthcheck", "50051"]
ENTRYPOINT ["python", "-m", "auth_service"]
CMD ["run"]

FROM runtime AS task-service
LABEL org.opencontainers.image.title="task-service" \
      org.opencontainers.image.description="Tasks of task-manager"
COPY --from=task-application /app /app
EXPOSE 50052 9092
HEALTHCHECK --interval=5s --timeout=4s --start-period=30s --retries=3 CMD ["python", "-m", "servicekit.process.healthcheck", "50052"]
ENTRYPOINT ["python", "-m", "task_service"]
CMD ["run"]
