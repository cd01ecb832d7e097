# The images of both services: docker build --target auth-service . and --target task-service .
#
# The base image's tag is exact. The release pipeline adds the digest, because it can query a registry.
ARG PYTHON_IMAGE=docker.io/library/python:3.13.15-slim-bookworm

# --- build: the project's wheel; each image installs it and keeps its own packages
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
# pip builds without isolation and without an index: the build requirements are already installed, with verified hashes.
RUN /build/bin/pip wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation --no-index --wheel-dir /dist .

# --- dependencies: the packages that both services need, in one shared layer
FROM build AS dependencies
COPY constraints/services.txt constraints/
RUN python3 -m venv --without-pip /opt/venv \
    && /build/bin/pip --python /opt/venv/bin/python install --quiet --disable-pip-version-check --no-cache-dir --no-compile \
       --require-hashes --only-binary :all: -r constraints/services.txt
# Compiled here, because the root is read-only at run time. With unchecked-hash, Python ignores the modification times of files.
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

# --- runtime: Python and the dependencies, without tools that install or build
FROM ${PYTHON_IMAGE} AS runtime
# The base image contains pip, and ensurepip could reinstall it. A service needs neither, but an attacker could use them.
RUN ["python3", "-c", "import ensurepip, glob, os, pip, shutil; \
folders = [os.path.dirname(module.__file__) for module in (pip, ensurepip)]; \
[shutil.rmtree(folder) for folder in folders + glob.glob(folders[0] + '-*.dist-info')]; \
[os.remove(path) for path in glob.glob('/usr/local/bin/pip*') + glob.glob('/usr/bin/pip*')]"]
COPY --from=dependencies /opt/venv /opt/venv
# PYTHONSAFEPATH: Python does not import modules from the working directory.
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONPATH=/app \
    PYTHONSAFEPATH=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
WORKDIR /app
# A number, so that Kubernetes can verify that the user is not root. No distribution assigns this number to a user.
USER 65532:65532
STOPSIGNAL SIGTERM
ARG VERSION=0.0.0
ARG REVISION=unknown
LABEL org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.vendor="task-manager"

# --- the two images. The default argument `run` serves; other arguments are `migrate`, in auth-service `keys list`, and in
# task-service `work`, the worker, which listens on the second pair of ports
FROM runtime AS auth-service
LABEL org.opencontainers.image.title="auth-service" \
      org.opencontainers.image.description="Accounts, sessions and signing keys of task-manager"
COPY --from=auth-application /app /app
EXPOSE 50051 9091
# This checks readiness, not only liveness, because other containers wait for it. A container engine does not restart an unhealthy container.
HEALTHCHECK --interval=5s --timeout=4s --start-period=30s --retries=3 CMD ["python", "-m", "servicekit.process.healthcheck", "50051"]
ENTRYPOINT ["python", "-m", "auth_service"]
CMD ["run"]

FROM runtime AS task-service
LABEL org.opencontainers.image.title="task-service" \
      org.opencontainers.image.description="Tasks of task-manager"
COPY --from=task-application /app /app
EXPOSE 50052 9092 50053 9093
HEALTHCHECK --interval=5s --timeout=4s --start-period=30s --retries=3 CMD ["python", "-m", "servicekit.process.healthcheck", "50052"]
ENTRYPOINT ["python", "-m", "task_service"]
CMD ["run"]
