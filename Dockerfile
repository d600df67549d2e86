# The service alone: no torch, no compiler, no package manager, and nothing that needs a shell.
# `docker compose up` builds it; `make pin-images` puts digests behind the images' names.
FROM python:3.11-slim-bookworm AS build
COPY requirements.lock /
RUN python -m venv /venv \
 && /venv/bin/pip install --no-cache-dir --disable-pip-version-check --no-deps --require-hashes -r /requirements.lock \
 && /venv/bin/pip uninstall -y -q pip setuptools
COPY app /srv/app
COPY models/__init__.py /srv/models/__init__.py
COPY models/contract /srv/models/contract
RUN /venv/bin/python -m compileall -q /venv/lib /srv

FROM python:3.11-slim-bookworm
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin ktserve \
 && install -d -o 10001 -g 10001 /data \
 && python -m pip uninstall -y -q --root-user-action=ignore pip setuptools
COPY --from=build /venv /venv
COPY --from=build /srv /srv
COPY artifacts /srv/artifacts
WORKDIR /srv
ENV PATH=/venv/bin:$PATH \
    HOME=/tmp \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    KT_HOST=0.0.0.0 \
    KT_PORT=8000 \
    KT_DATA_DIR=/data \
    KT_PROVIDER=cpu
USER 10001:10001
EXPOSE 8000
VOLUME /data
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=3s --start-period=20s --retries=3 \
  CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen(f\"http://127.0.0.1:{os.environ['KT_PORT']}/readyz\", timeout=2)"]
CMD ["python", "-m", "app"]
