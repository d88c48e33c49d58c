import os

from bedside.trustee.retention import ANSWER_DAYS, prune_files


def test_headers_stay_while_their_round_is_unfinished_and_answers_for_an_audits_time(bench):
    begun = bench.begin()
    vote = bench.seal(begun)
    seal = bench.store.round(bench.key(begun)).seal
    needed = bench.paths.headers / seal.headers.digest.hex()
    needed.write_bytes(b"set")
    (bench.paths.headers / ("0" * 64)).write_bytes(b"old set")
    now_ns = bench.clock.now_ns()
    assert prune_files(bench.paths, bench.store, now_ns=now_ns) == 1
    assert needed.exists()
    bench.reveal(begun, bench.others_vote(begun, vote))
    (answer,) = bench.paths.answers.iterdir()
    os.utime(answer, ns=(now_ns, now_ns))
    assert prune_files(bench.paths, bench.store, now_ns=now_ns + ANSWER_DAYS * 86_400 * 10**9) == 1
    assert answer.exists()
    assert not needed.exists()
    assert prune_files(bench.paths, bench.store, now_ns=now_ns + (ANSWER_DAYS + 1) * 86_400 * 10**9) == 1
    assert not answer.exists()
