# One image for operator, router and simulated engine: `trimtab-operator`, `trimtab router`, `trimtab engine-sim`.
#   docker build -t trimtab .
ARG PYTHON_VERSION=3.11

FROM python:${PYTHON_VERSION:-3.11}-slim AS build
WORKDIR /src
# The dependencies first: their layer lasts until a lock changes.
COPY requirements/operator.txt requirements/router.txt requirements/
RUN python -m venv /opt/trimtab \
 && /opt/trimtab/bin/pip install --no-cache-dir --disable-pip-version-check --no-deps --require-hashes \
      -r requirements/operator.txt -r requirements/router.txt
COPY pyproject.toml README.md LICENSE ./
COPY crds crds
COPY operator operator
COPY router router
COPY cli cli
COPY examples/quickstart examples/quickstart
RUN pip install --no-cache-dir --disable-pip-version-check hatchling==1.33.0 \
 && python -m hatchling build -t wheel -d /tmp/wheel \
 && /opt/trimtab/bin/pip install --no-cache-dir --disable-pip-version-check --no-deps /tmp/wheel/*.whl

FROM python:${PYTHON_VERSION:-3.11}-slim
COPY --from=build /opt/trimtab /opt/trimtab
ENV PATH=/opt/trimtab/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONUNBUFFERED=1 \
    HOME=/tmp
WORKDIR /tmp
USER 1000:1000
CMD ["trimtab", "--help"]
