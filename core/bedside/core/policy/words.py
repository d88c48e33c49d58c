"""Every rule of a policy in words: what it decides and why it is there. One sentence or two, for a person in charge."""

from __future__ import annotations

from typing import Final

FIELD_WORDS: Final = {
    "bundle_signers": "Who may sign models. A model is a program that works on your patients' signals, and"
    " whoever makes it can make it tell; so it is never the coordinator, who also chooses when it runs.",
    "tasks": "Tasks to take part in. Empty means any task whose model is signed by one of your signers.",
    "purposes": "What may be summed: train, evaluate, statistic.",
    "statistics": "Which statistics of the catalogue may be summed. There is no other way to ask for one.",
    "trusted_sites": "Sites whose devices you believe to be real. Only these, and your own, count towards min_trusted.",
    "min_trusted": "Devices of trusted sites that a sum must hold before one of yours may be in it. The size of a set"
    " protects nobody if the others in it are invented.",
    "max_share_one_site": "Largest part of a set that one site may fill: what a sum says is then never mostly"
    " about it.",
    "min_trustees": "Sites whose trustees must open a round together. One honest trustee is enough for privacy;"
    " several make it likelier that there is one.",
    "min_contributors": "The smallest set that a plan may ask for.",
    "guard_membership": "Refuse training sets that differ by a few trusted devices from one of the last eight. Off by"
    " default, because devices come and go; on, rounds wait for a steady fleet.",
    "max_clip": "Largest length of one contribution: how far one device can move the sum.",
    "value_bits": "Bits of one value. More bits tell more about one device, fewer blur the model.",
    "word_bits": "Bits of one word of the sum: room for the addition, without a say on privacy.",
    "min_subsample": "Least share of a model's coordinates that a round may ask for: sums of few of them are poor, and"
    " cost as many looks at your devices. 1 allows whole updates only.",
    "min_examples": "Fewest windows with which a device takes part: few windows stand out in what is learned.",
    "min_sessions": "Fewest recordings among them: with one, the contribution is about one person.",
    "min_batch": "Smallest training batch; tiny batches tell more about single windows.",
    "min_local_steps": "Fewest training steps of one contribution. A single step is a plain gradient, from"
    " which windows can be computed back; it is taken only where noise covers it.",
    "max_epochs": "Most passes over local data: more of them learn single windows by heart.",
    "min_learning_rate": "Smallest local learning rate: steps so small that the model stays where it was add up to a"
    " single gradient. Not asked for where noise covers it.",
    "max_learning_rate": "Largest local learning rate: a huge one writes the last batch into the model.",
    "max_proximal_pull": "Largest learning rate times proximal term: how far each step may go back to the start. At 1"
    " all steps but the last are undone. Not asked for where noise covers it.",
    "min_gradient_clip": "Smallest bound that a plan may set to a step's gradient: a tiny one makes steps tiny, as a"
    " tiny learning rate does. Not asked for where noise covers it.",
    "max_parameters": "Largest model. A large one has room to remember single windows, and costs memory.",
    "max_step_ms": "Slowest training step, as its author measured it: what your devices shall spend at most.",
    "hours": "Local hours in which new rounds are joined, such as 20:00-06:00. Empty means always. A device whose clock"
    " was never set leaves this to your trustee.",
    "max_close_hours": "Longest time that a round may stay open; seven days at most.",
    "max_rounds_per_day": "Most rounds a day, of all tasks together: every sum tells something.",
    "quotas": "Most rounds a day of one purpose. A purpose that is not named has max_rounds_per_day only.",
    "max_evaluations_per_checkpoint": "How often one state of a model may be evaluated: many evaluations with changing"
    " devices tell how single ones score.",
    "heartbeat": "How much a device tells about itself. Sensor activity shows which beds are in use.",
    "audit_one_in": "One in so many finished rounds is recomputed by the trustee, to find a wrong sum.",
    "noise_multiplier": "Noise that your trustee adds to every sum, in units of one device's largest contribution.",
    "max_epsilon": "Privacy that may be spent before your trustee refuses.",
    "delta": "The chance with which the promise of max_epsilon may fail.",
}
"""By the field's name in `SitePolicy`."""
