"""The site's own rules, evaluated alike on device and trustee."""

from bedside.core.policy.judge import Verdict, judge_plan
from bedside.core.policy.site_policy import SitePolicy, policy_digest

__all__ = ["SitePolicy", "Verdict", "judge_plan", "policy_digest"]
