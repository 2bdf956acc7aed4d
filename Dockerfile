# `serve` and `batch` on a CPU, by a user without privileges, with the default model prepared.
#
#   docker build --tag wsisam-qupath .
#   docker run --rm wsisam-qupath segment --help

FROM python:3.12-slim AS build
WORKDIR /source
COPY . .
RUN python -m venv /opt/wsisam \
    && /opt/wsisam/bin/pip install --no-cache-dir ".[demo]"

FROM python:3.12-slim
# Nextflow measures its tasks with ps.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends procps \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /opt/wsisam /opt/wsisam
RUN useradd --create-home wsisam
USER wsisam
WORKDIR /home/wsisam
ENV PATH=/opt/wsisam/bin:$PATH \
    WSISAM_QUPATH_CACHE=/home/wsisam/cache
# Prepares the model, and shows that it outlines tissue.
RUN wsisam-qupath demo --out /tmp/demo && rm -r /tmp/demo
EXPOSE 8473
ENTRYPOINT ["wsisam-qupath"]
CMD ["serve", "--host", "0.0.0.0"]
