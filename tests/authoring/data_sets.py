"""Generated data sets of two shapes, and recipes for them."""

import csv

import numpy as np

FIELDS = [f"f{at}" for at in range(22)]


def ward_rows(seed=1, rows=80):
    """Four hospitals, 22 values and whether a patient went home: a linear rule, another level in each hospital."""
    generator = np.random.default_rng(seed)
    rule = generator.normal(0, 1, 22)
    for site in range(4):
        for _ in range(rows):
            x = generator.normal(0.2 * site, 1, 22)
            yield f"site-{site}", "home" if x @ rule + generator.normal(0, 0.3) > 0.2 * site * rule.sum() else "icu", x


def write_ward(folder, **options):
    with (folder / "ward.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["site", "outcome", *FIELDS])
        writer.writerows([site, outcome, *(f"{value:.4f}" for value in x)] for site, outcome, x in ward_rows(**options))
    (folder / "ward.toml").write_text(
        'name = "ward"\nversion = "1"\nlabels = ["home", "icu"]\n'
        'layers = [{ kind = "flatten" }, { kind = "dense", units = 2 }]\n'
        'graphs = [{ level = "Q1", suffix = "all", optimiser = "sgd" }]\n'
        f'[window]\nstream = "labs"\nchannels = 22\nrate_hz = 1.0\nlength = 1\nhop = 1\nfields = {FIELDS}\n'
        f"offset = {[0.0] * 22}\nscale = {[1.0] * 22}\n"
        "[training]\nlearning_rate = 0.05\nmomentum = 0.9\nbatch = 16\nepochs = 1\n"
        '[[costs]]\ngraph = "q1-all-sgd"\nbatch = 16\nstep_ms = 0.1\nrss_mb = 60.0\n'
    )
    (folder / "data.toml").write_text(
        'kind = "csv"\nfile = "ward.csv"\nclient = "site"\nlabel = "outcome"\n[held_out]\nshare = 0.25\n'
    )


def write_pulse(folder, seed=1, windows=300):
    """A regression of 3 channels x 50 samples: the amplitude of a wave in mm[Hg], at a phase that does not matter."""
    generator = np.random.default_rng(seed)
    y = generator.uniform(60, 160, windows)
    turns = np.arange(50)[:, np.newaxis] / 12.5 + np.arange(3) / 3 + generator.uniform(0, 1, (windows, 1, 1))
    x = y[:, np.newaxis, np.newaxis] / 100 * np.sin(2 * np.pi * turns) + generator.normal(0, 0.05, (windows, 50, 3))
    people = np.array([f"p{at % 5}" for at in range(windows)])
    np.savez(folder / "pulse.npz", waves=x.astype(np.float32).transpose(0, 2, 1), pressure=y, person=people)
    (folder / "pulse.toml").write_text(
        'name = "pulse"\nversion = "1"\ntask = "regression"\nlabels = ["systolic"]\n'
        'layers = [{ kind = "conv1d", filters = 8, taps = 5 }, { kind = "relu" }, { kind = "gap" },'
        ' { kind = "dense", units = 1 }]\n'
        'graphs = [{ level = "Q1", suffix = "all", optimiser = "sgd" }]\n'
        '[targets]\nunit = ["mm[Hg]"]\noffset = [110.0]\nscale = [0.03]\n'
        '[window]\nstream = "pulse"\nchannels = 3\nrate_hz = 50.0\nlength = 50\nhop = 25\n'
        f"offset = {[0.0] * 3}\nscale = {[1.0] * 3}\n"
        "[training]\nlearning_rate = 0.05\nmomentum = 0.9\nbatch = 16\nepochs = 2\n"
        '[[costs]]\ngraph = "q1-all-sgd"\nbatch = 16\nstep_ms = 0.1\nrss_mb = 60.0\n'
    )
    (folder / "data.toml").write_text(
        'kind = "npz"\nfile = "pulse.npz"\nclient = "person"\nwindows = "waves"\ntargets = "pressure"\n'
        'channels_first = true\n[held_out]\nclients = ["p4"]\nshare = 0.2\n'
    )
