"""The life of a round: plan, openings, uploads, seal, votes, answers, result; all of it derived from the store."""
