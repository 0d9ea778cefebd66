# Sourced before each phase, on the host too, where the file is not. REQUESTS_CA_BUNDLE beats pip's own setting.
if [ -e /tmp/host-ca.crt ]; then
    export PIP_CERT=/tmp/host-ca.crt REQUESTS_CA_BUNDLE=/tmp/host-ca.crt
    export SSL_CERT_FILE=/tmp/host-ca.crt CURL_CA_BUNDLE=/tmp/host-ca.crt GIT_SSL_CAINFO=/tmp/host-ca.crt
fi
