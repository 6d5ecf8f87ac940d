# The image of svsync: `docker build -t svsync .`; how to run it stands in docs/how-to/container.md.
#
# Base images are named by digest: a tag can be moved, a digest cannot. A newer one is taken by
# hand, both lines at once, with what `docker buildx imagetools inspect` says of the tag.

FROM python:3.11.16-slim-bookworm@sha256:528257d48c1da0dcecc2e725d1ae34498d60c965f1241e39cd6a85a8859bdf84 AS build

ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1

WORKDIR /build
# What changes seldom comes first, so that a change of the source installs nothing anew. Nothing
# is compiled: a package without a wheel for this machine ends the build.
COPY requirements/build.txt requirements/run.txt requirements/
RUN python -m pip install --require-hashes --no-deps --only-binary=:all: -r requirements/build.txt \
 && python -m venv --without-pip /opt/svsync \
 && python -m pip --python /opt/svsync/bin/python install \
      --require-hashes --no-deps --only-binary=:all: -r requirements/run.txt

COPY pyproject.toml README.md LICENSE ./
COPY docs/reference/svsync.1 docs/reference/
COPY src src
RUN python -m pip wheel --no-deps --no-build-isolation --wheel-dir dist . \
 && python -m pip --python /opt/svsync/bin/python install --no-deps dist/*.whl

FROM python:3.11.16-slim-bookworm@sha256:528257d48c1da0dcecc2e725d1ae34498d60c965f1241e39cd6a85a8859bdf84

# The account has a number, so that Kubernetes can see that it is not root. The state directory
# is the only place of its own; with DATABASE_URL and a key service nothing is written there.
RUN python -m pip uninstall --yes pip setuptools wheel \
 && groupadd --gid 10001 svsync \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /var/lib/svsync --shell /usr/sbin/nologin svsync \
 && install --directory --owner=10001 --group=10001 --mode=0700 /var/lib/svsync

COPY --from=build /opt/svsync /opt/svsync

ENV PATH=/opt/svsync/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    SVSYNC_STATE_DIR=/var/lib/svsync

USER 10001:10001
WORKDIR /
EXPOSE 8443

# That it lives, and not that it is ready: what acts on this starts it anew, and no database
# comes back by that.
HEALTHCHECK --interval=30s --timeout=6s --start-period=60s --retries=3 CMD ["svsync", "healthcheck"]

ENTRYPOINT ["svsync"]
CMD ["serve"]
