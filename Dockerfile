# The image of sidecar and collector. What is in it: Debian's Python and the libraries it needs, the Python packages of
# requirements-image.lock, `opa` for the policies' gate, `ssh` for policies from git. No shell, no package manager.
#
# A Debian slim would bring apt, dpkg, perl and bash with it; a ready distroless image is tied to the Python that its
# makers chose, and its packages are not seen here. So the last stage is empty but for the files of named Debian
# packages, which the stage before takes from Debian itself. Nothing below names an architecture: amd64 and arm64.
#
#   docker build --build-arg SOURCE_DATE_EPOCH=$(git log -1 --format=%ct) -t decision-sidecar .
#   docker build --target sbom --output type=local,dest=. .       # the bill of materials alone: sbom.cdx.json
#   docker run --read-only --tmpfs /tmp -v ledger:/var/lib/sidecar decision-sidecar serve --init --dev
#
# tests/image/ runs each step of it, in a bare root instead of a container.
ARG DEBIAN=13.8-slim
ARG GO=1.26.8-trixie

FROM --platform=$BUILDPLATFORM golang:${GO} AS opa
ARG OPA_VERSION=v1.22.2
ARG GOMOD_SBOM_VERSION=v1.10.0
ARG TARGETOS=linux
ARG TARGETARCH
ENV CGO_ENABLED=0 GOFLAGS=-trimpath
RUN GOBIN=/opa/bin go install "github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod@${GOMOD_SBOM_VERSION}"
# Where it lies depends on whether this is built for another architecture than this machine's.
RUN GOPATH=/opa/go GOOS="${TARGETOS}" GOARCH="${TARGETARCH}" \
      go install -ldflags="-s -w -buildid=" "github.com/open-policy-agent/opa@${OPA_VERSION}" \
 && find /opa/go/bin -name opa -type f -exec install -m 0755 {} /opa/opa \; \
 && /opa/bin/cyclonedx-gomod bin -json -std -noserial -notimestamp -version "${OPA_VERSION}" \
      -output /opa/opa.cdx.json /opa/opa

FROM debian:${DEBIAN} AS build
ARG SOURCE_DATE_EPOCH=0
ENV PYTHONDONTWRITEBYTECODE=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
WORKDIR /build
# Debian's own state is what is wanted, with its security updates: the tag of the base says the point release.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates python3 python3-venv \
 && rm -rf /var/lib/apt/lists/*

COPY requirements-build.lock requirements-image.lock ./
RUN python3 -m venv tools \
 && tools/bin/pip install --no-compile --require-hashes -r requirements-build.lock
RUN python3 -m venv --without-pip /opt/sidecar \
 && tools/bin/pip --python /opt/sidecar/bin/python install --no-compile --require-hashes -r requirements-image.lock

COPY pyproject.toml README.md LICENSE ./
COPY sidecar/ sidecar/
RUN tools/bin/pip wheel --no-deps --no-build-isolation --wheel-dir dist . \
 && tools/bin/pip --python /opt/sidecar/bin/python install --no-compile --no-deps dist/*.whl

# The files of Debian's packages as they are in them, without the scripts that an installation would run.
WORKDIR /build/packages
RUN apt-get update \
 && apt-get download \
      base-files netbase libc6 libgcc-s1 libstdc++6 zlib1g libzstd1 libssl3t64 libffi8 libexpat1 libbz2-1.0 liblzma5 \
      libsqlite3-0 libuuid1 python3-minimal python3.13-minimal libpython3.13-minimal libpython3.13-stdlib \
      openssh-client libselinux1 libpcre2-8-0 libgssapi-krb5-2 libkrb5-3 libk5crypto3 libkrb5support0 libcom-err2 \
      libkeyutils1 \
 && rm -rf /var/lib/apt/lists/* \
 && mkdir -p /image/var/lib/dpkg \
 && for deb in *.deb; do \
      dpkg-deb --extract "${deb}" /image; \
      dpkg-deb --field "${deb}" | sed '/^Package:/a Status: install ok installed' >> /image/var/lib/dpkg/status; \
      echo >> /image/var/lib/dpkg/status; \
    done \
 && rm -- *.deb
# Of what came: no program but the three that are run, no manual, no setuid bit; of boto3 only what S3 needs.
WORKDIR /image
RUN find usr/bin usr/sbin usr/lib/openssh \( -type f -o -type l \) \
      ! -name python3 ! -name python3.13 ! -name ssh -delete \
 && rm -rf usr/lib/systemd usr/lib/tmpfiles.d usr/lib/sysusers.d usr/lib/*/gconv usr/lib/valgrind usr/share/gdb \
      usr/share/man usr/share/locale usr/share/lintian usr/share/bug usr/share/python3 \
      usr/share/apport usr/lib/python3.13/pydoc_data usr/lib/python3.13/ensurepip usr/lib/python3.13/config-3.13-* \
      etc/update-motd.d var/lib/systemd var/lock var/tmp \
 && find usr/share/doc -type f ! -name copyright -delete \
 && mkdir -p opt usr/local/bin etc/ssl/certs \
 && cp -a /opt/sidecar opt/ \
 && find opt/sidecar/bin -type f ! -name sidecar -delete \
 && find opt/sidecar/lib/python3.13/site-packages/botocore/data -mindepth 1 -maxdepth 1 -type d \
      ! -name s3 ! -name sts ! -name sso ! -name sso-oidc ! -name signin -exec rm -rf {} + \
 && cp /etc/ssl/certs/ca-certificates.crt etc/ssl/certs/ \
 && echo 'hosts: files dns' > etc/nsswitch.conf \
 && echo 'sidecar:x:10010:10010::/var/lib/sidecar:/nonexistent' > etc/passwd \
 && echo 'sidecar:x:10010:' > etc/group \
 && install -d -m 0700 -o 10010 -g 10010 var/lib/sidecar var/lib/collector \
 && chmod 1777 tmp
COPY --from=opa /opa/opa usr/local/bin/opa

WORKDIR /build/sbom
COPY --from=opa /opa/opa.cdx.json ./
RUN /build/tools/bin/cyclonedx-py environment --output-reproducible --of JSON --pyproject /build/pyproject.toml \
      -o python.cdx.json /opt/sidecar/bin/python \
 && made="$(date --utc --date="@${SOURCE_DATE_EPOCH}" +%Y-%m-%dT%H:%M:%S+00:00)" \
 && serial() { cat "$@" | sha256sum | sed -E 's/(.{8})(.{4})(.{4})(.{4})(.{12}).*/urn:uuid:\1-\2-\3-\4-\5/'; } \
 && /build/tools/bin/debsbom generate -t cdx --root /image --distro-arch "$(dpkg --print-architecture)" \
      --timestamp "${made}" --cdx-serialnumber "$(serial /image/var/lib/dpkg/status)" -o debian \
 && /build/tools/bin/debsbom merge -t cdx --distro-name decision-sidecar --timestamp "${made}" \
      --cdx-serialnumber "$(serial ./*.json)" -o sbom debian.cdx.json python.cdx.json opa.cdx.json \
 && rm debian.cdx.json python.cdx.json opa.cdx.json \
 && install -D -m 0644 sbom.cdx.json /image/usr/share/sbom/sbom.cdx.json

# Compiled here, since nothing can be written there; a hash of the source instead of its time, and never looked at.
RUN python3 -m compileall -q -s /image -p / --invalidation-mode unchecked-hash \
      /image/usr/lib/python3.13 /image/opt/sidecar/lib \
 && find /image -exec touch --no-dereference --date="@${SOURCE_DATE_EPOCH}" {} +

FROM scratch AS sbom
COPY --from=build /build/sbom/ /

FROM scratch
ARG DEBIAN
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="decision-sidecar" \
      org.opencontainers.image.description="A policy decision point beside each AI agent, and its collector" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.base.name="debian:${DEBIAN}"
COPY --from=build /image/ /
ENV PATH=/opt/sidecar/bin:/usr/local/bin:/usr/bin \
    SIDECAR_DATA_DIR=/var/lib/sidecar/ledger \
    COLLECTOR_DATA_DIR=/var/lib/collector
WORKDIR /
USER 10010:10010
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s \
      CMD ["sidecar", "health", "--server", "unix:/var/lib/sidecar/ledger/sidecar.sock"]
ENTRYPOINT ["sidecar"]
