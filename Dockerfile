FROM python:3.13-slim AS base

FROM base AS build
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY app app
COPY migrations migrations
RUN python -m venv --without-pip /opt/filemux \
 && pip --python /opt/filemux install --no-cache-dir --disable-pip-version-check -c constraints.txt .

FROM base
# By number, so that a cluster which forbids root can tell.
RUN useradd --system --uid 10001 --create-home --home-dir /var/lib/filemux filemux
COPY --from=build /opt/filemux /opt/filemux
ENV PATH=/opt/filemux/bin:$PATH \
    FILEMUX_DATA_DIR=/var/lib/filemux
USER 10001
# The kept bytes of every file (filemux.sources) and the spool of running uploads.
VOLUME /var/lib/filemux
EXPOSE 4000
HEALTHCHECK --interval=10s --timeout=3s --start-period=15s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:4000/healthz', timeout=2)"]
ENTRYPOINT ["filemux"]
CMD ["serve", "--host", "0.0.0.0"]
