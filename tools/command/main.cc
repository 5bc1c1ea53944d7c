// SPDX-License-Identifier: Apache-2.0
#include <pthread.h>

#include "tools/command/cli.h"

int main(int argc, char** argv) {
    // A daemon or a standby process is started through /proc, and would be called "exe".
    (void)::pthread_setname_np(::pthread_self(), "twinspool");
    return twinspool::run_command_line(argc, argv);
}
