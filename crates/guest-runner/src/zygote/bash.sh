# The parked Bash: a shell that has started and waits for its one program. It finds this as BASH_ENV, so
# it reads it before it opens the program, whose name, main.sh, is its argument from the start.
#
# Descriptor 3 is a socket to the guest-runner. An order is words that end with NUL: the working
# directory, the host's name, then what is to be changed in the environment, NAME=VALUE to set a variable
# and NAME to remove it, and an empty word.
#
# Nothing of this may be there for the program: all that is named is local, or gone at the end.
firelane() {
    local word
    printf 'ready\n' >&3
    IFS= read -r -d '' -u 3 word || exit 0
    cd -- "$word" || exit 125
    IFS= read -r -d '' -u 3 HOSTNAME
    while IFS= read -r -d '' -u 3 word && [[ $word ]]; do
        case $word in
        *=*) export "$word" ;;
        *) unset -v "$word" ;;
        esac
    done
}
firelane
exec 3>&-
unset -f firelane
unset -v BASH_ENV OLDPWD
declare -x OLDPWD
# The shell took its seed and its start when it started, before the snapshot.
RANDOM=$SRANDOM
SECONDS=0
# The last word of the last command is what the program finds in $_: as in a fresh shell, the shell.
: "$BASH"
