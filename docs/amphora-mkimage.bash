# bash completion for amphora-mkimage; made by amphora_mkimage/manpage.py from the table of settings.

_amphora_mkimage() {
    local word=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]} options operand
    # Bash takes --arch=a apart at the "=".
    if [[ $word == "=" ]]; then
        word=
    elif [[ $previous == "=" ]]; then
        previous=${COMP_WORDS[COMP_CWORD - 2]}
    fi
    case ${COMP_WORDS[1]} in
        check) options="-h --help --json --launch" operand= ;;
        verify) options="-h --help --manifest --size --root-password --json --all" operand=yes ;;
        boot) options="-h --help --arch --uefi --haproxy-config --network --reboot --timeout --memory --json --console" operand=yes ;;
        *) options="-h --help -a --arch -b --backend -c --cache-dir -d --release -e --enforce-mac -f --no-tmpfs -g --agent-ref -i --base-os -k --kernel --kernel-arg -l --log-file -m --cpu-pinning -n --no-ssh -o --output -p --agent-from-packages --no-agent --octavia -r --root-password --root-password-file --root-password-hash -s --size -t --type -w --working-dir -x --trace -y --fips --dry-run --json --dated-mirror --insecure --guest -v --version" operand= ;;
    esac
    COMPREPLY=()
    case "${COMP_WORDS[1]} $previous" in
        verify' --manifest') _amphora_mkimage_files -f "$word"; return ;;
        verify' --size') :; return ;;
        verify' --root-password') _amphora_mkimage_words "set locked any" "$word" ""; return ;;
        boot' --arch') _amphora_mkimage_words "amd64 x86_64 i386 armhf arm64 aarch64 ppc64le" "$word" ""; return ;;
        boot' --haproxy-config') _amphora_mkimage_files -f "$word"; return ;;
        boot' --network') _amphora_mkimage_words "user static dhcp slaac stateful dual" "$word" ""; return ;;
        boot' --timeout') :; return ;;
        boot' --memory') :; return ;;
        *' -a'|*' --arch') _amphora_mkimage_words "amd64 x86_64 i386 armhf arm64 aarch64 ppc64le" "$word" ""; return ;;
        *' -b'|*' --backend') _amphora_mkimage_words "haproxy" "$word" ""; return ;;
        *' -c'|*' --cache-dir') _amphora_mkimage_files -d "$word"; return ;;
        *' -d'|*' --release') _amphora_mkimage_words "jammy noble resolute bookworm trixie 44 45 9-stream 10-stream 9 10" "$word" ""; return ;;
        *' -g'|*' --agent-ref') :; return ;;
        *' -i'|*' --base-os') _amphora_mkimage_words "ubuntu ubuntu-minimal debian debian-minimal fedora centos rocky rhel" "$word" ""; return ;;
        *' -k'|*' --kernel') :; return ;;
        *' --kernel-arg') :; return ;;
        *' -l'|*' --log-file') _amphora_mkimage_files -f "$word"; return ;;
        *' -o'|*' --output') _amphora_mkimage_files -f "$word"; return ;;
        *' --octavia') :; return ;;
        *' -r'|*' --root-password') :; return ;;
        *' --root-password-file') _amphora_mkimage_files -f "$word"; return ;;
        *' --root-password-hash') :; return ;;
        *' -s'|*' --size') :; return ;;
        *' -t'|*' --type') _amphora_mkimage_words "qcow2 raw vhd tar" "$word" ","; return ;;
        *' -w'|*' --working-dir') _amphora_mkimage_files -d "$word"; return ;;
        *' --guest') _amphora_mkimage_words "auto namespace appliance" "$word" ""; return ;;
    esac
    if [[ $word == -* ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$options" -- "$word")
    elif ((COMP_CWORD == 1)); then
        mapfile -t COMPREPLY < <(compgen -W "build check verify boot" -- "$word")
    elif [[ $operand ]]; then
        compopt -o filenames 2>/dev/null
        mapfile -t COMPREPLY < <(compgen -f -- "$word")
    fi
}

# One of a few words; with "," also after others.
_amphora_mkimage_words() {
    local before= word=$2
    if [[ $3 == , && $word == *,* ]]; then
        before=${word%,*},
        word=${word##*,}
    fi
    mapfile -t COMPREPLY < <(compgen -P "$before" -W "$1" -- "$word")
    if [[ $3 == , ]]; then
        compopt -o nospace 2>/dev/null
    fi
}

_amphora_mkimage_files() {
    compopt -o filenames 2>/dev/null
    mapfile -t COMPREPLY < <(compgen "$1" -- "$2")
}

complete -F _amphora_mkimage amphora-mkimage
