"""User agent -> family of clients: a short name without version, e.g. "curl", "Boto3", "Chrome"; and its major version.

A family is what a stolen key's new user changes and a routine upgrade does not. Rules go from the special to the
general (every browser says "Mozilla", Edge says "Chrome", Boto3 may say "aws-cli"); what no rule knows is named by
its first product token. Tokens that look generated are "other", so that an attacker can't mint families at will.
"""

from __future__ import annotations

import re
from typing import Final

RULES: Final = (
    ("aws-cli", "aws-cli"),
    ("boto3", "Boto3"),
    ("botocore", "Boto3"),
    ("hashicorp terraform", "Terraform"),
    ("terraform", "Terraform"),
    ("pulumi", "Pulumi"),
    ("ansible", "Ansible"),
    ("kubectl", "kubectl"),
    ("kube-", "kube"),
    ("kubernetes", "kube"),
    ("postman", "Postman"),
    ("insomnia", "Insomnia"),
    ("python-requests", "python-requests"),
    ("python-httpx", "python-httpx"),
    ("python-urllib", "python-urllib"),
    ("aiohttp", "aiohttp"),
    ("scrapy", "Scrapy"),
    ("go-http-client", "Go-http-client"),
    ("okhttp", "okhttp"),
    ("axios", "axios"),
    ("node-fetch", "node-fetch"),
    ("undici", "undici"),
    ("guzzlehttp", "Guzzle"),
    ("apache-httpclient", "Apache-HttpClient"),
    ("powershell", "PowerShell"),
    ("sqlmap", "sqlmap"),
    ("nuclei", "Nuclei"),
    ("nikto", "Nikto"),
    ("headlesschrome", "HeadlessChrome"),
    ("googlebot", "Googlebot"),
    ("bingbot", "bingbot"),
    ("console.amazonaws.com", "aws-console"),
    ("signin.amazonaws.com", "aws-console"),
    (".amazonaws.com", "aws-service"),
    ("aws-sdk-", "aws-sdk"),
    ("aws-internal", "aws-service"),
    ("curl/", "curl"),
    ("wget/", "Wget"),
    ("crawler", "bot"),
    ("spider", "bot"),
    ("bot/", "bot"),
    ("bot;", "bot"),
    ("edg/", "Edge"),
    ("edga/", "Edge"),
    ("edge/", "Edge"),
    ("opr/", "Opera"),
    ("opera", "Opera"),
    ("samsungbrowser", "Samsung"),
    ("firefox/", "Firefox"),
    ("fxios/", "Firefox"),
    ("crios/", "Chrome"),
    ("chrome/", "Chrome"),
    ("chromium", "Chrome"),
    ("msie ", "IE"),
    ("trident/", "IE"),
    ("safari/", "Safari"),
    ("applewebkit", "Safari"),
)
"""(what the user agent holds, in lower case; the family)"""

_PRODUCT: Final = re.compile(r"[A-Za-z][A-Za-z0-9._+-]*")
_MAJOR: Final = re.compile(r"[a-z-]*[/ ]?v?(\d{1,3})(?!\d)")
LONGEST: Final = 24
NEWEST: Final = 255
MOST_DIGITS: Final = 3


def family(user_agent: str) -> str:
    """The client's family; "" where there is no user agent."""
    if not user_agent or user_agent == "-":
        return ""
    lower = user_agent.lower()
    for part, name in RULES:
        if part in lower:
            return name
    return _product(user_agent)


def version(user_agent: str) -> int:
    """The client's major version, 1 .. NEWEST; 0 where it says none, behind the name that gave the family."""
    lower = user_agent.lower()
    end = next((lower.index(part) + len(part) for part, _ in RULES if part in lower), -1)
    if end < 0:
        lead = len(lower) - len(lower.lstrip("[(\"' "))
        product = _PRODUCT.match(lower, lead)
        end = product.end() if product and "/" in lower[product.end() : product.end() + 1] else len(lower)
    found = _MAJOR.match(lower, end)
    return min(NEWEST, int(found.group(1))) if found else 0


def _product(user_agent: str) -> str:
    """The first product token without its version; "other" where it looks generated."""
    found = _PRODUCT.match(user_agent.lstrip("[(\"' "))
    token = found.group().rstrip("._+-") if found else ""
    digits = sum(letter.isdigit() for letter in token)
    return token if 0 < len(token) <= LONGEST and digits <= MOST_DIGITS else "other"
