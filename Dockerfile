# Parley on the CPU. For CUDA, start from an image that has it, and install a CUDA build of torch.
FROM python:3.12-slim

RUN apt-get update \
 && apt-get install -y --no-install-recommends gcc libc6-dev libopus0 \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /app
COPY pyproject.toml setup.py constraints.txt README.md LICENSE ./
COPY models ./models
COPY realtime ./realtime
COPY transport ./transport
COPY clients ./clients
RUN pip install --no-cache-dir --constraint constraints.txt --editable .
RUN useradd --create-home parley && mkdir -p /var/lib/parley && chown parley /var/lib/parley
USER parley
EXPOSE 8000 5060/udp 5060/tcp 10000-10199/udp
ENTRYPOINT ["parley"]
CMD ["serve", "--host", "0.0.0.0"]
