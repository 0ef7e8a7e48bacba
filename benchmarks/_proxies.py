"""What the router's benchmark compares: the router with and without classifier, a control, and nginx if installed."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

Proxy = Callable[[Path, int, int], list[str]]
"""From a folder of its own, its port and the engine's port to a command line."""
CONTROL = "control"


def _document(engine_port: int) -> dict[str, object]:
    names = {"low": 0, "medium": 2048, "high": 8192}
    pools = [
        {"name": n, "servedName": f"model-{n}", "reasoning": True, "addresses": [f"127.0.0.1:{engine_port}"]}
        for n in names
    ]
    return {
        "policy": "default/benchmark",
        "models": ["auto"],
        "tiers": [{"name": n, "pool": n, "thinkingTokens": t} for n, t in names.items()],
        "pools": pools,
        "classifier": {"defaultTier": "high"},
    }


def _router(*more: str) -> Proxy:
    def command(folder: Path, port: int, engine_port: int) -> list[str]:
        config = folder / "router.json"
        config.write_text(json.dumps(_document(engine_port)))
        argv = ["--config", str(config), "--listen", f"127.0.0.1:{port}", "--admin", "127.0.0.1:0", *more]
        return [sys.executable, "-m", "trimtab_router", *argv]

    return command


def _control(_folder: Path, port: int, engine_port: int) -> list[str]:
    return [sys.executable, str(Path(__file__).parent / "_control.py"), str(port), f"http://127.0.0.1:{engine_port}"]


def _nginx(folder: Path, port: int, engine_port: int) -> list[str]:
    config = folder / "nginx.conf"
    config.write_text(
        f"""
daemon off; master_process off; worker_processes 1; error_log stderr crit; pid {folder}/pid;
events {{ worker_connections 8192; }}
http {{
  access_log off; client_max_body_size 32m; client_body_buffer_size 1m; keepalive_requests 100000000;
  client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  upstream engine {{ server 127.0.0.1:{engine_port}; keepalive 4096; keepalive_requests 100000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{
      proxy_pass http://engine; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off;
    }}
  }}
}}
"""
    )
    return [shutil.which("nginx") or "nginx", "-c", str(config), "-p", str(folder)]


def available() -> dict[str, Proxy]:
    """The candidates that this machine can run."""
    found = {"router": _router(), "router, no classifier": _router("--classifier", "off"), CONTROL: _control}
    if shutil.which("nginx"):
        found["nginx"] = _nginx
    return found
