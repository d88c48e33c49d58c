"""The MLLP client against python-hl7 as the receiver."""

import asyncio

import pytest

from bedside.agent.client_tls import ClientTls
from bedside.agent.sinks.hl7.mllp_client import MllpClient
from bedside.core.errors import ConfigError, MalformedError, UnavailableError
from bedside.service.link.address import Address
from mllp_peers import accepted, certificates, framed, receiver

MESSAGE = b"MSH|^~\\&|A|B|C|D|20260301080000||ORU^R01^ORU_R01|id-7|P|2.6\rOBX|1|NM|8867-4^^LN||61\r"
OTHER = framed(b"MSH|^~\\&|||||1||ACK|2|P|2.6\rMSA|AA|another\r")


def client(port: int, **options) -> MllpClient:
    return MllpClient(Address("127.0.0.1", port), **options)


async def test_a_message_is_sent_over_one_connection_and_its_answer_found_by_its_id() -> None:
    seen = []

    def answer(message, count):
        seen.append(count)
        return [OTHER, *accepted(message)]

    async with receiver(answer) as (port, received):
        own = client(port)
        answers = await asyncio.gather(own.send(MESSAGE), own.send(MESSAGE.replace(b"id-7", b"id-8")))
        await own.close()
    assert [(one.code, one.control_id, one.accepted) for one in answers] == [("AA", "id-7", True), ("AA", "id-8", True)]
    assert received[0].encode().strip() == MESSAGE.strip()


@pytest.mark.parametrize(
    ("code", "accepted", "rejected"), [("AE", False, False), ("AR", False, True), ("CA", True, False)]
)
async def test_what_the_receiver_says_is_returned(code, accepted, rejected) -> None:
    told = f"MSH|^~\\&|||||1||ACK|2|P|2.6\rMSA|{code}|id-7\rERR||||E||||no such bed\r".encode()
    async with receiver(lambda message, count: [framed(told)]) as (port, _):
        own = client(port)
        answer = await own.send(MESSAGE)
        await own.close()
    assert (answer.accepted, answer.rejected, answer.words) == (accepted, rejected, "no such bed")


@pytest.mark.parametrize(
    ("told", "code"),
    [
        ([], "mllp-unreachable"),
        ([b"HTTP/1.1 400 Bad Request\r\n"], "mllp-answer"),
        ([framed(MESSAGE)], "mllp-answer"),
        ([OTHER * 20], "mllp-answer"),
        ([b"\x0bMSH" + b"x" * 70_000], "mllp-answer"),
        ([OTHER], "mllp-unanswered"),
    ],
    ids=["closes", "no-hl7", "no-ack", "others", "endless", "silent"],
)
async def test_a_receiver_that_does_not_answer_is_an_error_and_the_next_message_has_a_new_connection(
    told, code
) -> None:
    async with receiver(lambda message, count: told if count == 0 else accepted(message)) as (port, received):
        own = client(port, timeout_s=0.2 if code == "mllp-unanswered" else 20.0)
        with pytest.raises(UnavailableError) as caught:
            await own.send(MESSAGE)
        assert caught.value.code == code
        assert (await own.send(MESSAGE)).accepted
        await own.close()
    assert len(received) == 2


async def test_nobody_there_and_what_is_no_message() -> None:
    async with receiver() as (port, _):
        pass
    with pytest.raises(UnavailableError, match="mllp-unreachable"):
        await client(port).send(MESSAGE)
    with pytest.raises(MalformedError):
        await client(port).send(b"hello")


async def test_a_receiver_is_believed_by_its_authority_alone_and_may_ask_who_we_are(tmp_path) -> None:
    ours, theirs = certificates(tmp_path / "ours"), certificates(tmp_path / "theirs")
    async with receiver(tls=theirs.server(client_ca=ours.ca)) as (port, received):
        own = client(port, tls=ClientTls(theirs.ca, ours.certificate, ours.key))
        assert (await own.send(MESSAGE)).accepted
        await own.close()
        for wrong in (ClientTls(ours.ca, ours.certificate, ours.key), ClientTls(None), ClientTls(theirs.ca)):
            with pytest.raises(UnavailableError, match="mllp-unreachable"):
                await client(port, tls=wrong).send(MESSAGE)
    assert len(received) == 1


def test_files_that_are_no_certificates_and_keys_that_others_read_are_refused(tmp_path) -> None:
    own = certificates(tmp_path / "own")
    (tmp_path / "text").write_text("no PEM")
    for tls in (ClientTls(tmp_path / "text"), ClientTls(tmp_path / "none"), ClientTls(None, tmp_path / "text")):
        with pytest.raises(ConfigError, match="mllp-tls"):
            client(1, tls=tls)
    own.key.chmod(0o644)
    with pytest.raises(ConfigError, match="key-mode"):
        client(1, tls=ClientTls(None, own.certificate, own.key))
