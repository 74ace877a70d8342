"""The door to the Kubernetes API, against the lab's API in a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import apikit
import pytest
import yaml
from aiohttp import web
from podkit import serve_exec

from kitlib.command import Cmd, script
from kitlib.errors import ApiError, CommandError, ParseError
from kitlib.kube import Kube, WatchExpired
from kitlib.podshell import PodShell

MAPS = "/api/v1/namespaces/default/configmaps"


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[apikit.Api]:
    with apikit.running(tmp_path_factory.mktemp("api")) as api:
        yield api


def config(api: apikit.Api) -> dict:
    return yaml.safe_load(api.kubeconfig().read_text())


@pytest.fixture
def kube(api: apikit.Api) -> Iterator[Kube]:
    with Kube(config(api)) as kube:
        yield kube


def config_map(name: str, **data: str) -> dict:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def test_objects_are_made_found_listed_and_deleted(kube):
    made = kube.create(MAPS, config_map("one", key="value"))
    assert made["metadata"]["uid"]
    found = kube.find(f"{MAPS}/one")
    assert found is not None
    assert found["data"] == {"key": "value"}
    names = [item["metadata"]["name"] for item in kube.items(MAPS)]
    assert "one" in names
    picked = kube.items(MAPS, fieldSelector="metadata.name=one")
    assert [item["metadata"]["name"] for item in picked] == ["one"]
    kube.delete(f"{MAPS}/one", grace=0)
    assert kube.find(f"{MAPS}/one") is None
    kube.delete(f"{MAPS}/one")  # gone already is as good as deleted


def test_plain_text_answers(kube):
    assert kube.text("/readyz") == "ok"


def test_a_refusal_has_the_apis_words_status_and_reason(kube):
    kube.create(MAPS, config_map("twice"))
    with pytest.raises(ApiError) as caught:
        kube.create(MAPS, config_map("twice"))
    assert (caught.value.status, caught.value.reason) == (409, "AlreadyExists")
    assert caught.value.message == f'POST {MAPS}: configmaps "twice" already exists'
    assert not caught.value.retryable
    with pytest.raises(ApiError) as missing:
        kube.get(f"{MAPS}/none")
    assert (missing.value.status, missing.value.reason) == (404, "NotFound")


def test_a_user_without_rights_is_refused(api):
    someone = yaml.safe_load(api.kubeconfig("jane", ("nobody",)).read_text())
    with Kube(someone) as kube, pytest.raises(ApiError) as caught:
        kube.get("/api/v1/nodes")
    assert (caught.value.status, caught.value.reason) == (403, "Forbidden")
    assert "jane" in caught.value.message


def test_a_watch_gives_what_happens_after_the_list(kube):
    version = kube.get(MAPS)["metadata"]["resourceVersion"]
    kube.create(MAPS, config_map("seen"))
    kube.delete(f"{MAPS}/seen")
    events = []
    for event in kube.watch(MAPS, version, seconds=30):
        events.append((event["type"], event["object"]["metadata"].get("name")))
        if event["type"] == "DELETED":
            break
    assert events == [("ADDED", "seen"), ("DELETED", "seen")]


def test_a_watch_ends_when_its_time_is_over(kube):
    version = kube.get(MAPS)["metadata"]["resourceVersion"]
    assert [event["type"] for event in kube.watch(MAPS, version, seconds=1)] in ([], ["BOOKMARK"])


def test_a_watch_from_before_a_restart_asks_for_a_new_list(tmp_path):
    api = apikit.launch(tmp_path)
    try:
        with Kube(config(api)) as kube:
            version = kube.get(MAPS)["metadata"]["resourceVersion"]
            kube.create(MAPS, config_map("one"))
        api.stop()
        api = apikit.launch(tmp_path, port=api.port)
        with Kube(config(api)) as kube, pytest.raises(WatchExpired) as caught:
            next(iter(kube.watch(MAPS, version, seconds=5)))
        assert caught.value.status == 410
    finally:
        api.stop()


def test_no_answer_is_an_error_with_the_address_and_can_be_tried_again(api):
    gone = config(api)
    port = apikit.free_port()
    gone["clusters"][0]["cluster"]["server"] = f"https://127.0.0.1:{port}"
    with Kube(gone) as kube, pytest.raises(ApiError) as caught:
        kube.get("/api/v1/nodes")
    assert caught.value.status == 0
    assert caught.value.retryable
    assert f"no answer from https://127.0.0.1:{port}" in caught.value.message
    assert "refused" in caught.value.message
    assert caught.value.remedy


def test_through_a_forward_the_certificate_is_still_that_of_the_api(api):
    told = config(api)
    told["clusters"][0]["cluster"]["server"] = "https://127.0.0.1:1"  # only the forward leads on
    with Kube(told, port=api.port) as kube:
        assert kube.server == "https://127.0.0.1:1"
        assert kube.text("/readyz") == "ok"
    told["clusters"][0]["cluster"]["server"] = "https://10.77.0.11:6443"
    with Kube(told, port=api.port) as kube, pytest.raises(ApiError, match=r"10\.77\.0\.11"):
        kube.text("/readyz")


def test_another_clusters_api_is_refused(api, tmp_path):
    foreign = apikit.write_pki(tmp_path / "pki")
    told = config(api)
    other = yaml.safe_load(
        yaml.safe_dump(apikit.pki.kubeconfig(api.url, foreign.cert_pem, "x", token="t"))
    )
    told["clusters"] = other["clusters"]
    told["contexts"][0]["context"]["cluster"] = other["clusters"][0]["name"]
    with Kube(told) as kube, pytest.raises(ApiError) as caught:
        kube.get("/api/v1/nodes")
    assert "certificate verify failed" in caught.value.message


def test_the_keys_are_never_on_a_disk(api, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    before = anonymous_files()
    kube = Kube(config(api))
    assert kube.text("/readyz") == "ok"
    assert list(tmp_path.rglob("*")) == []
    assert len(anonymous_files() - before) == 3, "the CA, the certificate and the key"
    kube.close()
    assert anonymous_files() == before


def anonymous_files() -> set[Path]:
    """Return this process's open files that are in memory alone."""
    found = set()
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            if str(link.readlink()).startswith("/memfd:"):
                found.add(link)
    return found


def test_proxy_settings_do_not_catch_a_forwarded_connection(api, monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    with Kube(config(api), port=api.port) as kube:
        assert kube.text("/readyz") == "ok"


@pytest.mark.parametrize("broken", [{}, {"clusters": [], "users": []}, {"clusters": None}])
def test_a_kubeconfig_that_is_none_is_a_parse_error(broken):
    with pytest.raises(ParseError, match="kubeconfig: not usable"):
        Kube(broken)


@pytest.fixture
def rude(api: apikit.Api) -> Iterator[list[bytes]]:
    """A TLS server with the API's certificate that answers what the test puts in the list."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    pki_dir = api.directory / "pki"
    context.load_cert_chain(pki_dir / "apiserver.crt", pki_dir / "apiserver.key")
    answers: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        answers.append(str(listener.getsockname()[1]).encode())

        def serve() -> None:
            with contextlib.suppress(OSError):
                peer = listener.accept()[0]
                with context.wrap_socket(peer, server_side=True) as secure:
                    secure.recv(65536)
                    secure.sendall(answers[1])

        thread = threading.Thread(target=serve)
        thread.start()
        yield answers
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
    thread.join(10)


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (HEAD + b'Content-Length: 100\r\n\r\n{"items": [', "broke off"),
        (HEAD + b"Content-Length: 5\r\n\r\nhello", "not JSON"),
        (b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 4\r\n\r\noops", "oops"),
        (b"", "no answer"),
    ],
)
def test_a_bad_answer_is_an_error_of_the_api(api, rude, answer, words):
    rude.append(answer)
    with Kube(config(api), port=int(rude[0])) as kube, pytest.raises(ApiError, match=words):
        kube.get("/api/v1/nodes")


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (b'{"type": "ADD', "broke off"),
        (b'{"type": "ADD\n', "torn answer"),
        (b'{"type":"ERROR","object":{"code":410,"message":"too old"}}\n', "too old"),
        (b'{"type":"ERROR","object":{"code":500,"message":"sorry"}}\n', "sorry"),
    ],
)
def test_a_watch_that_goes_wrong_is_an_error_of_the_api(api, rude, lines, words):
    rude.append(HEAD + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n" % (len(lines), lines))
    with Kube(config(api), port=int(rude[0])) as kube, pytest.raises(ApiError, match=words) as seen:
        list(kube.watch("/api/v1/nodes", "1"))
    assert isinstance(seen.value, WatchExpired) is (words == "too old")


class Kubelet(apikit.FakeKubelet):
    """A kubelet whose `vanish` ends without a status, and whose `hang` never ends."""

    def __exit__(self, *exc: object) -> None:
        asyncio.run_coroutine_threadsafe(self._settle(), self._loop).result(10)
        super().__exit__(*exc)

    async def _settle(self) -> None:
        """Let every connection end before the loop does."""
        assert self._runner
        await self._runner.cleanup()
        for _ in range(500):
            if len(self._loop._selector.get_map()) <= 1:  # the loop's own wake-up socket
                return
            await asyncio.sleep(0.01)

    async def _exec(self, request: web.Request) -> web.WebSocketResponse:
        program = request.query.getall("command")[0]
        if program == "sh":
            return await serve_exec(request)
        if program not in ("vanish", "hang"):
            return await super()._exec(request)
        channels = web.WebSocketResponse(protocols=["v4.channel.k8s.io"])
        await channels.prepare(request)
        if program == "hang":
            await channels.receive()
        await channels.close()
        return channels


@pytest.fixture
def pod(api: apikit.Api, kube: Kube, tmp_path: Path) -> Iterator[apikit.FakeKubelet]:
    """A pod `echo` on a node whose kubelet answers logs and exec."""
    with Kubelet(api.ca, tmp_path) as kubelet:
        kube.create("/api/v1/nodes", apikit.node("node-1", port=kubelet.port))
        kube.create(
            "/api/v1/namespaces/default/pods",
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": "echo"},
                "spec": {"nodeName": "node-1", "containers": [{"name": "c", "image": "x"}]},
            },
        )
        yield kubelet
        kube.delete("/api/v1/namespaces/default/pods/echo", grace=0)
        kube.delete("/api/v1/nodes/node-1")


def test_a_command_in_a_pod_comes_back_whole(kube, pod):
    result = kube.exec("default", "echo", Cmd.of("say", "two words"), container="c")
    assert (result.host, result.command) == ("default/echo", "say 'two words'")
    assert (result.stdout, result.stderr) == ("say two words\n", "to stderr\n")
    assert result.exit_status == 0
    assert kube.exec("default", "echo", Cmd.of("exit", "3")).exit_status == 3
    assert kube.text("/api/v1/namespaces/default/pods/echo/log") == "log of c\n"


def test_a_shell_in_a_pod_goes_through_the_api(kube, pod):
    with PodShell("node-1", partial(kube.open_exec, "default", "echo")) as shell:
        for number in range(30):
            result = shell.run(script("echo $1; echo $1 >&2; exit 3", str(number)))
            said = f"{number}\n"
            assert (result.stdout, result.stderr, result.exit_status) == (said, said, 3)
        assert len(shell.run(script("head -c 300000 /dev/zero | tr '\\0' x")).stdout) == 300_000
    with pytest.raises(ApiError, match="exec in default/none") as caught:
        PodShell("node-1", partial(kube.open_exec, "default", "none")).run(Cmd.of("true"))
    assert caught.value.status == 404


def test_a_command_in_no_pod_is_an_error_of_the_api(kube):
    with pytest.raises(ApiError, match="exec in default/none") as caught:
        kube.exec("default", "none", Cmd.of("true"))
    assert caught.value.status == 404


@pytest.mark.parametrize(("program", "error"), [("vanish", ApiError), ("hang", CommandError)])
def test_a_command_in_a_pod_that_does_not_end_well(kube, pod, program, error):
    with pytest.raises(error) as caught:
        kube.exec("default", "echo", Cmd.of(program), timeout=0.5)
    assert "default/echo" in str(caught.value)
