# bash completion for amphora-mkimage; made by amphora_mkimage/manpage.py from the table of settings.

_amphora_mkimage() {
    local word=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]} options
    case ${COMP_WORDS[1]} in
        check) options="-h --help --json --launch" ;;
        verify) options="-h --help --manifest --size --root-password --json --all" ;;
        boot) options="-h --help --arch --uefi --haproxy-config --network --timeout --memory --json --console" ;;
        *) options="-h --help -a --arch -b --backend -c --cache-dir -d --release -e --enforce-mac -f --no-tmpfs -g --agent-ref -i --base-os -k --kernel -l --log-file -m --cpu-pinning -n --no-ssh -o --output -p --agent-from-packages --no-agent -r --root-password --root-password-file --root-password-hash -s --size -t --type -w --working-dir -x --trace -y --fips --dry-run --insecure --guest -v --version" ;;
    esac
    COMPREPLY=()
    case "${COMP_WORDS[1]} $previous" in
        *' -a'|*' --arch') mapfile -t COMPREPLY < <(compgen -W "amd64 i386 armhf arm64 aarch64 ppc64le" -- "$word") && return ;;
        *' -b'|*' --backend') mapfile -t COMPREPLY < <(compgen -W "haproxy" -- "$word") && return ;;
        *' -i'|*' --base-os') mapfile -t COMPREPLY < <(compgen -W "ubuntu ubuntu-minimal debian debian-minimal fedora centos centos-minimal rocky rhel" -- "$word") && return ;;
        *' -t'|*' --type') mapfile -t COMPREPLY < <(compgen -W "qcow2 raw vhd tar" -- "$word") && return ;;
        *' --guest') mapfile -t COMPREPLY < <(compgen -W "auto namespace appliance" -- "$word") && return ;;
        verify' --root-password') mapfile -t COMPREPLY < <(compgen -W "set locked any" -- "$word") && return ;;
        boot' --arch') mapfile -t COMPREPLY < <(compgen -W "amd64 i386 armhf arm64 aarch64 ppc64le" -- "$word") && return ;;
        boot' --network') mapfile -t COMPREPLY < <(compgen -W "user static dhcp slaac stateful dual" -- "$word") && return ;;
    esac
    if [[ $word == -* ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$options" -- "$word")
    elif ((COMP_CWORD == 1)); then
        mapfile -t COMPREPLY < <(compgen -W "build check verify boot" -- "$word")
    else
        mapfile -t COMPREPLY < <(compgen -f -- "$word")
    fi
}

complete -o filenames -F _amphora_mkimage amphora-mkimage
