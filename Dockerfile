# The NimbusImage worker for x86-64 with an NVIDIA GPU. Build it from this folder; docs/nimbusimage.md tells the rest:
#   docker build -t annotations/sam2_fewshot:latest .

# torch alone, in the Python of the base image: this layer of some gigabytes stays the same when the worker changes.
FROM python:3.12-slim-bookworm AS torch
ARG TORCH_VERSION=2.14.1
ARG TORCHVISION_VERSION=0.29.1
# Empty: PyPI, whose wheels bring CUDA 13 along. Another index of PyTorch's for an older driver.
ARG TORCH_INDEX_URL=
RUN pip install --no-cache-dir ${TORCH_INDEX_URL:+--index-url "$TORCH_INDEX_URL"} \
        "torch==$TORCH_VERSION" "torchvision==$TORCHVISION_VERSION"

# The worker and everything else, in an environment that sees that torch.
FROM torch AS worker
RUN python -m venv --system-site-packages /opt/worker
ENV PATH=/opt/worker/bin:$PATH
WORKDIR /source
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY src ./src
RUN pip install --no-cache-dir ".[nimbus]"

# The checkpoints that the form offers; each is checked against its published SHA-256. The cache spares the download
# when the worker changes.
FROM worker AS checkpoints
ARG CHECKPOINTS="base_plus small tiny"
ARG SAM2_FEWSHOT_BASE_URL=
RUN --mount=type=cache,target=/cache \
    set -e; mkdir /checkpoints; export XDG_CACHE_HOME=/cache; \
    for name in $CHECKPOINTS; do file=$(sam2-fewshot models fetch "$name"); cp "$file" /checkpoints/; done

FROM python:3.12-slim-bookworm
RUN useradd --create-home worker
COPY --from=torch /usr/local/lib/python3.12/site-packages /usr/local/lib/python3.12/site-packages
COPY --from=checkpoints /checkpoints /sam2_fewshot/checkpoints
COPY --from=worker /opt/worker /opt/worker
# Readable for the worker, also from a checkout that is not.
COPY --chmod=755 entrypoint.py /sam2_fewshot/
LABEL isUPennContrastWorker="" \
      isAnnotationWorker="" \
      isGPUWorker="true" \
      com.nvidia.volumes.needed="nvidia_driver" \
      interfaceName="SAM2 Few-Shot" \
      interfaceCategory="SAM2" \
      description="Mark 5 to 20 objects, and every similar one is found, with SAM 2's frozen features and no training" \
      annotationShape="polygon" \
      defaultToolName="SAM2 few-shot"
# The NVIDIA variables are for an engine whose GPU runtime hands over only the cards that an image asks for.
ENV PATH=/opt/worker/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER worker
WORKDIR /home/worker
# Fails the build when the form cannot be made.
RUN sam2-fewshot interface > /dev/null && test -r /sam2_fewshot/entrypoint.py
ENTRYPOINT ["python", "/sam2_fewshot/entrypoint.py"]
