"""The script with which bash completes the command line, also behind `host:port`, `k=v` and `@time`."""

from __future__ import annotations

# Readline breaks words at : = @ too (COMP_WORDBREAKS), and replaces only what stands behind the last of
# them. So the words are put together again for the program, and what it offers is cut where readline
# begins; where a user has taken these characters out of COMP_WORDBREAKS, neither changes anything.
_TEMPLATE = r"""_riverrun_completion() {
    local line=$COMP_LINE breaks=${COMP_WORDBREAKS//[^:=@]/}
    local gap word last at i kind value IFS=$'\n'
    local words=()

    for ((i = 0; i <= COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        gap=${line%%[![:space:]]*}
        line=${line#"$gap"}
        at=$((${#COMP_LINE} - ${#line}))
        line=${line#"$word"}
        # Of the word at the cursor only what stands before it.
        ((i < COMP_CWORD || COMP_POINT < at)) || word=${word:0:COMP_POINT-at}
        last=$((${#words[@]} - 1))
        if [[ $i -gt 1 && -z $gap && -n $breaks &&
            (${words[last]} == *[$breaks] || $word == [$breaks]*) ]]; then
            words[last]+=$word
        else
            words+=("$word")
        fi
    done

    last=$((${#words[@]} - 1))
    # The program completes the value of --option=value, and readline what is behind the last break.
    word=${words[last]}
    [[ $word == -*=* ]] && word=${word#*=}
    gap=
    [[ -n $breaks && $word == *[$breaks]* && $word != [\"\']* ]] &&
        gap=${word%"${word##*[$breaks]}"}

    while IFS=, read -r kind value; do
        case $kind in
        plain)
            [[ $value == *= ]] && compopt -o nospace 2>/dev/null
            value=${value#"$gap"}
            [[ -n $value ]] && COMPREPLY+=("$value")
            ;;
        dir) compopt -o dirnames 2>/dev/null ;;
        file) compopt -o default 2>/dev/null ;;
        esac
    done <<<"$(env COMP_WORDS="${words[*]}" COMP_CWORD=$last @VARIABLE@=bash_complete "$1")"
    return 0
}

complete -o nosort -F _riverrun_completion @PROGRAM@
"""


def bash_script(program: str, variable: str) -> str:
    """Return the script for a program that completes where an environment variable tells it to.

    >>> bash_script("riverrun", "_RIVERRUN_COMPLETE").splitlines()[-1]
    'complete -o nosort -F _riverrun_completion riverrun'
    """
    return _TEMPLATE.replace("@PROGRAM@", program).replace("@VARIABLE@", variable)
