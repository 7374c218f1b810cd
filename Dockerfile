# syntax=docker/dockerfile:1
# The service on one machine:
#   docker build -t muster .
#   docker run -p 8787:8787 -v muster:/data muster
# It serves only circles that were let in:
#   docker exec CONTAINER muster access allow CODE --data /data

# What is needed, wheels only, checked by hash; then this checkout, which is run where it lies.
# Nothing of this stage but /opt/muster is kept.
FROM python:3.13-slim-bookworm AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /opt/muster/app
COPY requirements-serve.txt ./
RUN python -m venv /opt/muster \
    && /opt/muster/bin/pip install --no-deps --require-hashes --only-binary=:all: -r requirements-serve.txt
COPY pyproject.toml README.md LICENSE ./
COPY capsules capsules
COPY muster muster
COPY chalicelib chalicelib
COPY web/muster web/muster
COPY web/app/index.html web/app/manifest.webmanifest web/app/icon.svg web/app/worker.js web/app/
COPY web/app/packed web/app/packed
COPY web/app/vendor/LICENSES web/app/vendor/
RUN /opt/muster/bin/pip install --no-deps --no-build-isolation -e . \
    && /opt/muster/bin/pip uninstall --yes pip setuptools \
    && /opt/muster/bin/python -m compileall -q -j 0 /opt/muster/lib /opt/muster/app

FROM python:3.13-slim-bookworm
ENV PATH=/opt/muster/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1
RUN groupadd --system --gid 8787 muster \
    && useradd --system --uid 8787 --gid muster --home-dir /data --shell /usr/sbin/nologin muster \
    && install --directory --owner=muster --group=muster --mode=0700 /data
COPY --from=build /opt/muster /opt/muster
USER 8787:8787
WORKDIR /data
VOLUME /data
EXPOSE 8787
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=10s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8787/v1/health', timeout=4)"]
ENTRYPOINT ["muster", "serve", "--host", "0.0.0.0", "--port", "8787", "--data", "/data", "--closed"]
