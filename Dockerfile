# The controller and the data plane, in one image: `fsm controller` and `python -m gateway`.
# Builds that are to be the same tomorrow give the base by its digest: --build-arg BASE=docker.io/library/python@sha256:…
ARG BASE=python:3.11-slim

FROM ${BASE} AS build
RUN python3 -m venv /opt/fsm
COPY constraints.txt /src/
COPY pyproject.toml README.md LICENSE /src/
COPY gateway /src/gateway
COPY controller /src/controller
RUN /opt/fsm/bin/pip install --no-cache-dir -c /src/constraints.txt "/src[controller]" && /opt/fsm/bin/pip uninstall -y pip \
 # Bytecode that is valid whatever becomes of the files' times: modules that are compiled at each start cost time and memory.
 && python3 -m compileall -q -f --invalidation-mode unchecked-hash /opt/fsm/lib

FROM ${BASE}
# Whoever gets in finds no installer, and no program that runs as root.
RUN python3 -m pip uninstall -y --root-user-action=ignore setuptools wheel pip && find / -xdev -type f -perm /6000 -exec chmod a-s {} +
COPY --from=build /opt/fsm /opt/fsm
ENV PATH=/opt/fsm/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 65532:65532
CMD ["fsm", "--help"]
