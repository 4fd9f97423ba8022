"""Mistakes that ports make, planted in the code one at a time: the suite has to notice each.

``python -m parity --mutants`` runs all of them.
"""

from parity.mutants.catalogue import MUTANTS as MUTANTS
from parity.mutants.mutant import Mutant as Mutant
from parity.mutants.mutant import MutantResult as MutantResult
from parity.mutants.mutant import Place as Place
from parity.mutants.results import print_results as print_results
from parity.mutants.results import to_markdown as to_markdown
from parity.mutants.results import verdict as verdict
from parity.mutants.run import judge_mutant as judge_mutant
from parity.mutants.run import run_mutant as run_mutant
from parity.mutants.run import run_mutants as run_mutants
