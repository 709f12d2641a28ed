#!/usr/bin/env bash
# House rules that no compiler checks: every Rust file opens with `//!`, and rooms stay small.
set -euo pipefail
cd "$(dirname "$0")/.."
bad=0
while read -r file; do
    if ! head -n 1 "$file" | grep -q '^//!'; then
        echo "tidy: $file does not open with a //! line that says what it is for"
        bad=1
    fi
    # Production code ends where the unit tests begin.
    lines=$(awk '/^#\[cfg\(test\)\]/ { exit } { n++ } END { print n+0 }' "$file")
    if [[ $file == */src/* && $lines -gt 450 ]]; then
        echo "tidy: $file has $lines lines before its tests; split it"
        bad=1
    fi
done < <(git ls-files --cached --others --exclude-standard 'crates/*.rs' 'fuzz/*.rs')
exit $bad
