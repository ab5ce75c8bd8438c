"""Both verifiers on thousands of changed ledgers, bundles and payloads; the second's memory on a million entries."""

from __future__ import annotations

import pytest

from tests.evidence import test_changed_payloads, test_second_verifier

pytestmark = pytest.mark.soak

test_payloads = test_changed_payloads.test_agreement_on_changed_payloads
test_ledgers = test_second_verifier.test_agreement_on_changed_ledgers
test_bundles = test_second_verifier.test_agreement_on_changed_bundles
test_memory = test_second_verifier.test_memory_is_flat
