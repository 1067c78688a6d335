"""Incidents that their victims or investigators described, and what looks like them in real logs and rings nobody.

Of each only what its source says is taken over: who came how, after how long, doing what. The key's life before is a
real person's or service's (`real_lives`). "Rings" is an incident; a finding alone rings nobody.
"""

from __future__ import annotations

from functools import cache

import msgspec
import pytest

from schemas.event import Event
from schemas.key import Key
from tests.detectors.real_lives import (
    DAY_US,
    HOUR_US,
    KEY,
    MINUTE_US,
    SECOND_US,
    Told,
    apache,
    as_attested,
    at,
    burst,
    cloudtrail,
    hours_of,
    lived,
    series,
    told,
)

pytestmark = pytest.mark.timeout(900)  # the first one compiles the pass

HOME = "75.97.9.59"  # a US access provider
HOMES = ("50.139.66.106", "86.76.247.183", "14.160.65.22", "183.179.22.186")  # subscribers in US, FR, VN, HK
RENTED = "193.142.58.126"  # a hosting company in Romania
TOR = "185.220.101.4"
READER = "130.237.218.86"  # of the Apache log: a browser that reads pages all day


@cache
def office() -> tuple[Event, ...]:
    """Four months of somebody who works Monday to Friday from home in one time zone, three requests at a time."""
    return tuple(lived(hours_of("8d728a96b068", 0, 120), apache(READER), client_ip=HOME))


def call(method: str, route: str, at_us: int, status: int = 200, **changes: str) -> Event:
    """One request of an operation that the key never did."""
    line = msgspec.structs.replace(apache(READER)[0], method=method, route=route, path=route, status=status)
    return at([at_us], [line], **changes)[0]


def quiet(found: Told) -> bool:
    return not found.opened


def test_sharing_midnight_blizzard_comes_through_a_subscriber_here_and_one_there_while_the_owner_works() -> None:
    """Microsoft, "Midnight Blizzard: Guidance for responders on nation-state attack", January 2024.

    Residential proxies whose addresses change all the time; an application's credential makes more applications and
    gives them a role over all mailboxes.
    """
    life = office()
    start_us = life[-1].ts_us + 20 * HOUR_US
    lines = burst(start_us, apache(READER), every_s=60, count=20)
    mixed = [
        msgspec.structs.replace(each, client_ip=HOME if k % 2 else HOMES[k // 2 % len(HOMES)])
        for k, each in enumerate(lines)
    ]
    made = call("POST", "/v1/applications", start_us + 21 * MINUTE_US, client_ip=HOMES[0])
    given = call("POST", "/v1/roles/assignments", start_us + 22 * MINUTE_US, client_ip=HOMES[1])
    found = told(life, [*mixed, made, given])
    assert found.bits("sharing") > 10
    assert "in several hands at once" in found.words("sharing")
    assert found.opened and {"sharing", "geography", "novel_operation"} <= found.reasons


def test_sharing_a_crawler_that_comes_from_address_to_address_of_one_network_does_not_ring() -> None:
    """Googlebot of the Apache log, whose own lines come from many addresses of 66.249.73.0/24."""
    lines = [*apache("66.249.73.135"), *apache("66.249.73.185")]
    life = lived(hours_of("8d728a96b068", 0, 120), lines, client_ip="66.249.73.135")
    visit = burst(life[-1].ts_us + 20 * HOUR_US, lines, every_s=60, count=20)
    found = told(life, [msgspec.structs.replace(x, client_ip=f"66.249.73.{135 + k}") for k, x in enumerate(visit)])
    assert quiet(found) and found.bits("sharing") == 0


def test_dormant_cloudflare_a_token_that_was_thought_unused_is_used_27_days_after_its_theft() -> None:
    """Cloudflare, "Thanksgiving 2023 security incident": stolen on 18 October, used from 14 November on.

    First to see what it opens; the directory and the dashboard refuse it.
    """
    life = office()
    start_us = life[-1].ts_us + 27 * DAY_US
    seen = burst(start_us, apache(READER), every_s=20, count=6, client_ip=RENTED)
    refused = [
        call("GET", f"/v1/{name}", start_us + (3 + k) * MINUTE_US, 403, client_ip=RENTED, outcome="denied")
        for k, name in enumerate(("dashboard", "directory", "console"))
    ]
    found = told(life, [*seen, *refused])
    assert found.bits("dormant") > 6 and "used again after 27 days" in found.words("dormant")
    assert found.opened and {"dormant", "geography"} <= found.reasons


def test_dormant_somebody_back_from_the_longest_holiday_of_his_year_does_not_ring() -> None:
    hours = hours_of("a00acaa7628a", 200, 300)
    back = max(range(60, len(hours)), key=lambda k: hours[k][0] - hours[k - 1][0])
    assert hours[back][0] - hours[back - 1][0] > 21 * DAY_US
    life = lived(hours[:back], apache(READER), client_ip=HOME)
    assert quiet(told(life, lived(hours[back : back + 40], apache(READER), client_ip=HOME)))


def test_misuse_capital_one_the_credentials_of_a_firewall_are_used_from_tor_and_list_buckets() -> None:
    """United States v. Paige A. Thompson, complaint of July 2019: from IPVanish and Tor, list and synchronise."""
    declared = Key(key_id=KEY, environment="live", owner="bank", allowed_networks=("75.97.0.0/16",))
    life = office()
    start_us = life[-1].ts_us + 20 * HOUR_US
    found = told(life, burst(start_us, apache(READER), every_s=10, count=8, client_ip=TOR), declared)
    assert "used outside of its allowed networks (185.220.101.4)" in found.words("misuse")
    assert found.opened and {"misuse", "geography"} <= found.reasons


def test_misuse_another_machine_in_the_declared_network_does_not_ring() -> None:
    declared = Key(key_id=KEY, environment="live", owner="bank", allowed_networks=("75.97.0.0/16",))
    life = office()
    start_us = life[-1].ts_us + 20 * HOUR_US
    found = told(life, burst(start_us, apache(READER), every_s=10, count=8, client_ip="75.97.200.7"), declared)
    assert quiet(found) and found.bits("misuse") == 0


def test_decoy_a_key_that_was_pushed_to_a_public_repository_is_used_80_seconds_later() -> None:
    """Xebia, "What happens when you leak AWS credentials", April 2023: pushed 12:33:12, List and Describe 12:34:32."""
    for outcome, status, opened in (("success", 200, ["proof"]), ("invalid", 401, [])):
        lines = [as_attested(each) for each in cloudtrail("cloudtrail-stratus/aws.execution.ec2-user-data.json")]
        reads = [each for each in lines if each.route.startswith("ec2:Describe")]
        pushed_us = reads[0].ts_us
        calls = burst(pushed_us + 80 * SECOND_US, reads, 1.0, 5, client_ip=RENTED, outcome=outcome, status=status)
        found = told([], calls, Key(key_id=KEY, decoy=True))
        assert [each.rule for each in found.opened] == opened, "who knows its id alone does not hold it"
        assert found.bits("decoy") > 0


def test_novel_client_snowflake_a_database_client_that_the_customer_never_used_unloads_tables() -> None:
    """Mandiant, "UNC5537 Targets Snowflake Customer Instances", June 2024: DBeaver Ultimate, a VPN, a stage made."""
    life = office()
    start_us = life[-1].ts_us + 20 * HOUR_US
    calls = burst(start_us, apache(READER), every_s=10, count=8)
    calls.append(call("POST", "/api/v2/stages", start_us + 100 * SECOND_US))
    tool = "DBeaver_DBeaverUltimate"
    found = told(life, [msgspec.structs.replace(each, client_ip=RENTED, user_agent=tool) for each in calls])
    assert "by DBeaver_DBeaverUltimate, a client never seen for this key" in found.words("novel_client")
    assert found.opened and {"novel_client", "geography", "novel_operation"} <= found.reasons


def test_novel_client_a_browser_that_has_updated_itself_does_not_ring() -> None:
    life = office()
    old = life[-1].user_agent
    new = old.replace("Chrome/33.0.1750.91", "Chrome/34.0.1847.116")
    assert new != old
    visit = burst(life[-1].ts_us + 20 * HOUR_US, apache(READER), 10, 8, client_ip=HOME, user_agent=new)
    found = told(life, visit)
    assert quiet(found) and found.bits("novel_client") == 0


@cache
def administrator() -> tuple[Event, ...]:
    """Four months of somebody who looks at his cloud: reads of a console's sessions in the invictus log."""
    sessions = ("ASIATFQR7NSCS5BLNV76", "ASIATFQR7NSCSUD2OWV6", "ASIATFQR7NSCVDQK5XKV")
    log = cloudtrail("cloudtrail-invictus")
    reads = [as_attested(each) for each in log if each.key_id in sessions and each.method == "GET"]
    return tuple(lived(hours_of("8d728a96b068", 0, 120), reads, client_ip=HOME, user_agent="aws-cli/2.11"))


def played(start_us: int, records: list[Event], address: str = HOME) -> list[Event]:
    """Recorded calls at their own pace, by the administrator's client: no label is left."""
    times = [start_us + each.ts_us - records[0].ts_us + k for k, each in enumerate(records)]
    return at(times, [as_attested(each) for each in records], client_ip=address, user_agent="aws-cli/2.11")


TECHNIQUES = (
    "persistence.iam-create-backdoor-role", "persistence.iam-backdoor-user", "defense-evasion.cloudtrail-delete",
)  # fmt: skip


@pytest.mark.parametrize(("address", "rings"), [(HOME, False), (RENTED, True)])
def test_novel_operation_recorded_persistence_is_found_from_the_owners_place_and_rings_from_another(
    address: str, rings: bool
) -> None:
    """Stratus Red Team's detonation logs: a role and its policy, a key for somebody else, the trail deleted."""
    life = administrator()
    start_us = life[-1].ts_us + 20 * HOUR_US
    for name in TECHNIQUES:
        found = told(life, played(start_us, cloudtrail(f"cloudtrail-stratus/aws.{name}.json"), address))
        assert found.bits("novel_operation") > 6, name
        assert "that this key never did" in found.words("novel_operation")
        assert bool(found.opened) == rings, name
        assert ("novel_operation" in found.reasons) == rings


def test_novel_operation_an_administrators_first_look_at_something_does_not_ring() -> None:
    """The first call of Stratus' list of managed instances, which anybody makes who opens that page."""
    life = administrator()
    look = cloudtrail("cloudtrail-stratus/aws.execution.ssm-start-session.json")[:1]
    assert look[0].route == "ssm:DescribeInstanceInformation"
    found = told(life, played(life[-1].ts_us + 20 * HOUR_US, look))
    assert quiet(found) and "never done" in found.words("novel_operation")


def test_geography_beyondtrust_a_session_is_used_half_an_hour_later_on_the_other_side_of_the_world() -> None:
    """BeyondTrust, "BeyondTrust Discovers Breach of Okta Support Unit", October 2023: from Malaysia, by API a user."""
    life = office()
    start_us = life[-1].ts_us + 30 * MINUTE_US
    malaysia = "202.59.10.100"
    seen = burst(start_us, apache(READER), every_s=20, count=6, client_ip=malaysia)
    found = told(life, [*seen, call("POST", "/api/v1/users", start_us + 4 * MINUTE_US, client_ip=malaysia)])
    assert "in MY, never seen for this key" in found.words("geography")
    assert "too far from its last place to have travelled" in found.words("geography")
    assert found.opened and {"geography", "novel_operation"} <= found.reasons


def test_geography_somebody_who_flew_from_california_to_europe_does_not_ring() -> None:
    """By his computer's clock: from UTC-7 to UTC+2, 14 hours between the last request there and the first one here."""
    hours = hours_of("b8887d3f2e82", 400, 60)
    flew = next(k for k in range(1, len(hours)) if hours[k][1] - hours[k - 1][1] > 6 * 3600)
    assert 13 < (hours[flew][0] - hours[flew - 1][0]) / HOUR_US < 15
    life = lived(hours[:flew], apache(READER), client_ip=HOMES[0])
    found = told(life, lived(hours[flew : flew + 30], apache(READER), client_ip=HOMES[1]))
    assert quiet(found)
    assert "in FR, never seen" in found.words("geography") and "too far" not in found.words("geography")


def test_errors_the_refused_calls_of_the_invictus_attack_are_found_route_by_route() -> None:
    """invictus-ir's dataset, July 2023: what its attacker's tool was refused or did not find."""
    life = administrator()
    tool = [each for each in cloudtrail("cloudtrail-invictus") if "stratus-red-team_" in each.user_agent]
    refused = [each for each in tool if each.status >= 400]
    assert len({each.route for each in refused}) > 10
    found = told(life, played(life[-1].ts_us + 20 * HOUR_US, refused))
    assert found.bits("errors") > 20 and "of this visit, where none are usual" in found.words("errors")
    assert found.opened and "errors" in found.reasons


def test_errors_a_client_that_asks_60_times_for_one_file_that_is_gone_does_not_ring() -> None:
    """Chef's client of the Apache log: 404 for three days on one path."""
    life, chef = office(), apache("208.91.156.11")
    assert (len(chef), {each.status for each in chef}, len({each.path for each in chef})) == (60, {404}, 1)
    start_us = life[-1].ts_us + 20 * HOUR_US - chef[0].ts_us
    found = told(life, at([start_us + each.ts_us for each in chef], chef, client_ip=HOME))
    assert quiet(found) and found.bits("errors") <= 10.6


def load_balancer() -> list[Event]:
    """Two weeks of a service: NAB's requests at a load balancer, one in ten, for a feed reader's lines."""
    return at(series("realAWSCloudwatch/elb_request_count_8c0756", 0.1), apache("46.105.14.53"))


def test_spike_sourcegraph_a_proxy_for_everybody_is_put_on_a_leaked_token() -> None:
    """Sourcegraph, "Security update: Incident involving unauthorized admin access", August 2023.

    Noticed by a significant rise of API usage; how steep it was isn't told: here two requests a second, and four.
    """
    life = load_balancer()
    for every_s, severity in ((0.5, "medium"), (0.25, "high")):
        found = told(life, burst(life[-1].ts_us + 3 * MINUTE_US, apache("46.105.14.53"), every_s=every_s, count=1_200))
        assert found.bits("spike") > 20
        assert len(found.opened) == 1 and "spike" in found.reasons
        assert found.incidents[-1].severity == severity


def test_spike_the_two_weeks_of_a_real_load_balancer_do_not_ring_with_all_their_peaks() -> None:
    life = load_balancer()
    assert quiet(told(life[:1], life[1:]))


def clerk() -> tuple[list[Event], Key]:
    """The office worker's hours in Dhaka, where the week is Sunday to Thursday."""
    hours = [(us - 10 * HOUR_US - DAY_US, 0) for us, _ in hours_of("8d728a96b068", 0, 120)]
    return lived(hours, apache(READER), client_ip=HOME), Key(key_id=KEY, time_zone="Asia/Dhaka", owner="bank")


def test_off_hours_bangladesh_bank_35_payment_orders_leave_its_own_terminal_on_thursday_night() -> None:
    """4 February 2016: the last of staff left at 20:03, the orders went until 03:59. From its own place and program.

    By itself it stays a finding at this budget, as the design has it: a late evening looks the same.
    """
    life, declared = clerk()
    thursday_us = 1_759_968_000_000_000 + 14 * HOUR_US + 36 * MINUTE_US  # 2025-10-09 20:36 in Dhaka
    assert 0 < thursday_us - life[-1].ts_us < 3 * DAY_US
    found = told(life, burst(thursday_us, apache(READER), every_s=740, count=35, client_ip=HOME), declared)
    assert found.bits("off_hours") > 6 and "on Thu at 20 h, usually 08-17 h (Asia/Dhaka)" in found.words("off_hours")


def test_off_hours_a_month_of_the_same_clerks_real_evenings_brings_one_finding_and_rings_nobody() -> None:
    life, declared = clerk()
    cut = len(life) * 3 // 4 // 3 * 3
    found = told(life[:cut], life[cut:], declared)
    assert quiet(found) and found.words("off_hours").count("used on") == 1


def test_enumeration_trello_addresses_are_looked_up_one_by_one_of_which_most_are_unknown() -> None:
    """BleepingComputer, "Trello API abused to link email addresses to 15 million accounts", January 2024.

    500 million addresses were tried; one in 33 had an account. Here with a customer's own key, from its own place.
    """
    life = office()
    looked = [call("GET", "/1/members/{id}", life[-1].ts_us, 200 if k % 33 == 32 else 404) for k in range(60)]
    paths = [f"/1/members/user{k}@mail.example" for k in range(60)]
    lines = [msgspec.structs.replace(x, path=path) for x, path in zip(looked, paths, strict=True)]
    found = told(life, burst(life[-1].ts_us + 20 * HOUR_US, lines, every_s=5, client_ip=HOME))
    assert found.bits("enumeration") > 6
    assert "different objects of GET /1/members/{id} refused or missing in a visit" in found.words("enumeration")
    assert found.opened and {"enumeration", "errors"} <= found.reasons


def test_enumeration_a_crawler_that_reads_page_after_page_of_a_whole_site_does_not_ring() -> None:
    """Googlebot of the Apache log, as it is: its last 182 requests are for 129 pages."""
    log = apache("66.249.73.135")
    assert len({each.path for each in log[300:]}) > 120
    found = told(log[:300], log[300:])
    assert quiet(found) and found.bits("enumeration") == 0


def test_enumeration_60_requests_for_one_file_that_is_gone_are_one_object() -> None:
    life, chef = office(), apache("208.91.156.11")
    start_us = life[-1].ts_us + 20 * HOUR_US - chef[0].ts_us
    found = told(life, at([start_us + each.ts_us for each in chef], chef, client_ip=HOME))
    assert quiet(found) and found.bits("enumeration") == 0
