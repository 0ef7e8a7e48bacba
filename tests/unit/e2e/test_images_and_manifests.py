"""Images as containerd reads them, what goes into this checkout's, and the files for kind and Docker."""

import hashlib
import io
import json
import re
import tarfile
from pathlib import Path

import pytest
import yaml

from testcluster import nodeinit
from testcluster.checkout import packages_folder, python_version, write_commands
from testcluster.errors import UnavailableError
from testcluster.images import Image, pack, write_archive
from testcluster.paths import ROOT
from testcluster.prometheus import IN_CLUSTER_URL, NAMESPACE, PORT, configuration
from testcluster.story import IMAGE, KIND_CACHE, KIND_NAME, service_to
from testcluster.vllm import POD_LAUNCHER, PodMount


def read_archive(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as tar:
        return {m.name: tar.extractfile(m).read() for m in tar if m.isfile()}


def test_an_archive_names_its_layers_by_what_is_in_them(tmp_path: Path):
    (tmp_path / "root" / "bin").mkdir(parents=True)
    (tmp_path / "root" / "bin" / "x").write_text("hello")
    layer = pack(tmp_path / "root", tmp_path / "layer.tar")
    write_archive(Image("localhost/x:1", (layer,), {"User": "1000"}), tmp_path / "image.tar")
    files = read_archive(tmp_path / "image.tar")
    (entry,) = json.loads(files["manifest.json"])
    config = json.loads(files[entry["Config"]])
    assert entry["RepoTags"] == ["localhost/x:1"]
    assert config["config"]["User"] == "1000"
    digests = [f"sha256:{hashlib.sha256(files[name]).hexdigest()}" for name in entry["Layers"]]
    assert config["rootfs"]["diff_ids"] == digests
    with tarfile.open(fileobj=io.BytesIO(files[entry["Layers"][0]])) as inner:
        assert {(m.name, m.uid, m.gid) for m in inner} == {("bin", 0, 0), ("bin/x", 0, 0)}


def test_an_image_of_one_program_runs_it(tmp_path: Path):
    (tmp_path / "pause").write_bytes(b"\x7fELF")
    image = Image.of_program("localhost/pause:1", tmp_path / "pause", tmp_path / "layer.tar")
    with tarfile.open(image.layers[0].path) as tar:
        assert tar.getmember("pause").mode == 0o755
    assert image.config["Entrypoint"] == ["/pause"]


def test_the_images_python_is_the_one_that_debian_brings():
    assert python_version(["libc6_2_amd64.deb", "python3.13-minimal_3.13.5-2_amd64.deb"]) == "3.13"
    assert packages_folder("3.13") == "usr/local/lib/python3.13/dist-packages"
    with pytest.raises(UnavailableError, match="the image's Python is unknown"):
        python_version(["libc6_2_amd64.deb"])


def test_console_scripts_of_the_wheel_become_commands(tmp_path: Path):
    info = tmp_path / "trimtab-0.1.dist-info"
    info.mkdir()
    (info / "entry_points.txt").write_text("[console_scripts]\ntrimtab = package.module:main\n")
    write_commands(tmp_path, tmp_path / "bin")
    script = tmp_path / "bin" / "trimtab"
    assert script.stat().st_mode & 0o777 == 0o755
    text = script.read_text()
    assert text.startswith("#!/usr/bin/python3\n")
    assert "from package.module import main" in text
    compile(text, "trimtab", "exec")


def test_a_pod_takes_vllm_from_its_node_read_only():
    mount = PodMount(Path("/cache/vllm"), Path("/cache/model"), python="python3.11")
    env = {e["name"]: e["value"] for e in mount.env}
    assert env["PATH"].startswith(f"/opt/vllm/{Path(POD_LAUNCHER).parent}:")
    assert env["PYTHONPATH"] == "/opt/vllm/lib/python3.11/site-packages"
    assert {m["name"] for m in mount.volume_mounts} == {v["name"] for v in mount.volumes}
    writable = {m["mountPath"] for m in mount.volume_mounts if not m.get("readOnly")}
    assert writable == {"/tmp", "/dev/shm"}


def test_prometheus_looks_for_targets_by_kubeconfig_where_it_is_no_pod():
    scrape = [{"job_name": "pods", "kubernetes_sd_configs": [{"role": "pod"}]}, {"job_name": "self"}]
    own = configuration(scrape, kubeconfig=Path("/k"))["scrape_configs"]
    assert own[0]["kubernetes_sd_configs"] == [{"role": "pod", "kubeconfig_file": "/k"}]
    assert own[1] == {"job_name": "self"}
    assert configuration(scrape)["scrape_configs"] == scrape


def test_pods_reach_prometheus_by_one_name_in_every_cluster():
    own = {d["kind"]: d for d in service_to("192.0.2.1")}
    manifest = {d["kind"]: d for d in yaml.safe_load_all((ROOT / "e2e/kind/prometheus.yaml").read_text())}
    for documents in (own, manifest):
        service = documents["Service"]
        assert (service["metadata"]["name"], service["metadata"]["namespace"]) == ("prometheus", NAMESPACE)
        assert service["spec"]["ports"][0]["port"] == PORT
    assert f"http://prometheus.{NAMESPACE}.svc:{PORT}" == IN_CLUSTER_URL
    selector = manifest["Service"]["spec"]["selector"]
    assert selector == manifest["Deployment"]["spec"]["template"]["metadata"]["labels"]


def test_kinds_files_agree_with_the_tests():
    config = yaml.safe_load((ROOT / "e2e/kind/config.yaml").read_text())
    (node,) = config["nodes"]
    up = (ROOT / "e2e/kind/up").read_text()
    assert config["name"] == KIND_NAME
    assert [m["containerPath"] for m in node["extraMounts"]] == [str(KIND_CACHE)]
    assert next(iter(node["labels"])) in up
    assert f"image={IMAGE}\n" in up
    assert "@CACHE@" in node["extraMounts"][0]["hostPath"]


def test_the_dockerfile_takes_what_is_there_and_leaves_root():
    text = (ROOT / "Dockerfile").read_text()
    assert set(re.findall(r"^FROM (\S+)", text, re.MULTILINE)) == {"python:${PYTHON_VERSION:-3.11}-slim"}
    assert re.findall(r"^USER (\S+)", text, re.MULTILINE)[-1] == "1000:1000"
    assert "://" not in text
    copied = [w for line in re.findall(r"^COPY (?!--from)(.+)", text, re.MULTILINE) for w in line.split()[:-1]]
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    for source in copied:
        assert (ROOT / source).exists(), source
        assert f"!{source.split('/')[0]}" in ignored, source
    pinned = re.search(r"hatchling==(\S+)", text).group(1)
    assert f"hatchling=={pinned} " in (ROOT / "requirements/dev.txt").read_text()


def test_the_node_is_configured_for_a_machine_without_privileges_to_spare(tmp_path: Path):
    kubelet = nodeinit.kubelet_config("/ca.crt")
    assert kubelet["failCgroupV1"] is False
    assert kubelet["authorization"] == {"mode": "Webhook"}
    assert "restrict_oom_score_adj = true" in nodeinit.containerd_config(tmp_path)
    assert nodeinit.proxy_config(tmp_path)["conntrack"]["maxPerCore"] == 0
    assert nodeinit.cni_config()["plugins"][0]["type"] == "ptp"
    assert f"kubeconfig {tmp_path}" in nodeinit.corefile(tmp_path)
