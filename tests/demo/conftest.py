"""A result with made-up figures, for whatever renders or checks one."""

import pytest

from bedside.demo.result import Check, Hospital, Result, RoundFigures, Scene, View


@pytest.fixture
def result() -> Result:
    history = tuple(
        RoundFigures(
            number=number,
            phase="opened",
            seconds=4.5 + number * 0.1,
            phases=(("opening", 0.4), ("collecting", 3.6 + number * 0.1), ("sealed", 0.2), ("voted", 0.3)),
            contributors=8,
            received_accuracy=0.2 + number * 0.06,
            accuracy=0.3 + number * 0.055,
        )
        for number in range(1, 11)
    )
    refused = RoundFigures(11, "failed", 1.2, (("opening", 1.2),), 0, None, None, "hospital-b refused: too few devices")
    return Result(
        local_accuracy=0.58,
        local_accuracies={f"wearer-{number}": 0.5 + number * 0.01 for number in range(1, 9)},
        federated_accuracy=0.86,
        federated_int8_accuracy=0.855,
        int8_agreement=0.991,
        pooled_accuracy=0.87,
        device_predictions=412,
        device_accuracy=0.85,
        rounds=10,
        devices=8,
        trustees=3,
        windows=3214,
        held_out_windows=901,
        parameters=24_523,
        upload_bytes_per_round=51_204,
        model_bytes=98_700,
        bundle_bytes=412_000,
        round_seconds_median=5.0,
        agent_rss_mb=92.0,
        trustee_rss_mb=48.0,
        coordinator_rss_mb=84.0,
        setup_seconds=21.0,
        run_seconds=88.0,
        seed=1,
        history=(*history, refused),
        scenes=(
            Scene(
                "coordinator-killed",
                "The coordinator was killed with SIGKILL, and started again six seconds later.",
                20.0,
                (Check("predictions-went-on", True, "all 10 devices predicted while it was away"),),
            ),
        ),
        hospitals=(
            Hospital("hospital-a", (1, 2, 3), (9,), 1_200, 3, 10, 47.5),
            Hospital("hospital-b", (4, 5, 6), (10,), 1_100, 3, 10, 48.0),
            Hospital("hospital-c", (7, 8), (), 914, 3, 10, 48.5),
        ),
        view=View(
            round_number=1,
            upload=tuple(500 + (at * 37) % 41 for at in range(48)),
            upload_z=0.4,
            opened=tuple(int(2000 * 2.718 ** (-((at - 23.5) ** 2) / 90)) for at in range(48)),
            opened_low=-300.5,
            opened_high=300.5,
            word_bits=16,
            contributors=8,
        ),
        versions={"bedside": "0.1.0", "python": "3.11.2"},
    )
