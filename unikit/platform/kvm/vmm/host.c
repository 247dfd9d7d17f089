/* SPDX-License-Identifier: MIT */
/* What a process asks its host once: /dev/kvm, the processor table for guests, and by a tiny guest
 * which processor features code at CPL 3 really sees (a KVM without hardware virtualization shows
 * the host's, whatever the table says). */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unikit/platform/kvm/vmm/internal.h>
#include <unikit/rt/x86_64/cpu.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int kvm_fd = -1;
static pid_t owner; /* a child of fork() opens its own */
static int run_bytes;
static struct kvm_cpuid2 *cpuid;
static bool features_known;
static uint64_t known_features;

int vmm_refuse_host(struct kit_kvm_refused *refused, int number, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    refused->kind = KIT_KVM_REFUSED_HOST;
    refused->number = number;
    vsnprintf(refused->text, sizeof refused->text, format, arguments);
    va_end(arguments);
    return KIT_EIO;
}

static int read_cpuid(int fd, struct kit_kvm_refused *refused)
{
    enum { MOST = 256 };
    struct kvm_cpuid2 *table = calloc(1, sizeof *table + MOST * sizeof table->entries[0]);
    if (table == NULL)
        return vmm_refuse_host(refused, ENOMEM, "no memory for the processor table");
    table->nent = MOST;
    if (ioctl(fd, KVM_GET_SUPPORTED_CPUID, table) < 0) {
        free(table);
        return vmm_refuse_host(refused, errno, "KVM_GET_SUPPORTED_CPUID failed");
    }
    free(cpuid);
    cpuid = table;
    return 0;
}

static int open_locked(struct kit_kvm_refused *refused)
{
    if (kvm_fd >= 0 && owner == getpid())
        return kvm_fd;
    int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return vmm_refuse_host(refused, errno, "cannot open /dev/kvm");
    const struct {
        int number;
        const char *name;
    } needed[] = {{KVM_CAP_USER_MEMORY, "USER_MEMORY"}, {KVM_CAP_EXT_CPUID, "EXT_CPUID"}};
    int version = ioctl(fd, KVM_GET_API_VERSION, 0);
    int rc = 0;
    if (version != KVM_API_VERSION)
        rc = vmm_refuse_host(refused, 0, "/dev/kvm has API version %d, not %d", version,
                             KVM_API_VERSION);
    for (size_t i = 0; rc == 0 && i < KIT_ARRAY_SIZE(needed); i++)
        if (ioctl(fd, KVM_CHECK_EXTENSION, needed[i].number) <= 0)
            rc = vmm_refuse_host(refused, 0, "the KVM here is too old: it lacks KVM_CAP_%s",
                                 needed[i].name);
    run_bytes = ioctl(fd, KVM_GET_VCPU_MMAP_SIZE, 0);
    if (rc == 0 && run_bytes < (int)sizeof(struct kvm_run))
        rc = vmm_refuse_host(refused, errno, "KVM_GET_VCPU_MMAP_SIZE failed");
    if (rc == 0)
        rc = read_cpuid(fd, refused);
    if (rc != 0) {
        close(fd);
        return rc;
    }
    kvm_fd = fd;
    owner = getpid();
    return fd;
}

int vmm_host_open(struct kit_kvm_refused *refused)
{
    pthread_mutex_lock(&lock);
    int fd = open_locked(refused);
    pthread_mutex_unlock(&lock);
    return fd;
}

int vmm_host_run_bytes(void)
{
    return run_bytes;
}

const struct kvm_cpuid2 *vmm_host_cpuid(void)
{
    return cpuid;
}

unsigned vmm_host_cpus(void)
{
    long count = sysconf(_SC_NPROCESSORS_ONLN);
    return count < 1 ? 1 : (unsigned)count;
}

/* ---- the probe guest ----------------------------------------------------------------------------
 */

#define PROBE_DATA UINT64_C(0x102000)
#define PROBE_LEAVES 6

/* CPUID of the leaves in the data page replaced by the answers, then XCR0, then exit code 42. */
__asm__(".pushsection .rodata\n"
        "vmm_probe_start:\n"
        "    mov $0x102000, %esi\n"
        "    mov $6, %edi\n"
        "1:  mov (%rsi), %eax\n"
        "    xor %ecx, %ecx\n"
        "    cpuid\n"
        "    mov %eax, (%rsi)\n"
        "    mov %ebx, 4(%rsi)\n"
        "    mov %ecx, 8(%rsi)\n"
        "    mov %edx, 12(%rsi)\n"
        "    add $16, %rsi\n"
        "    dec %edi\n"
        "    jnz 1b\n"
        "    testl $0x08000000, 0x102018\n" /* OSXSAVE of leaf 1 */
        "    jz 2f\n"
        "    xor %ecx, %ecx\n"
        "    xgetbv\n"
        "    mov %eax, (%rsi)\n"
        "    mov %edx, 4(%rsi)\n"
        "2:  mov $0xff000, %edx\n"
        "    movl $42, (%rdx)\n"
        "3:  jmp 3b\n"
        "vmm_probe_end:\n"
        ".popsection\n");
extern const uint8_t vmm_probe_start[], vmm_probe_end[];

static uint64_t features_from(const uint8_t *answers)
{
    const struct kit_cpuid none = {0, 0, 0, 0};
    struct kit_cpuid leaf[PROBE_LEAVES];
    uint64_t xcr0;
    memcpy(leaf, answers, sizeof leaf);
    memcpy(&xcr0, answers + sizeof leaf, 8);
    bool seven = leaf[0].eax >= 7;
    return kit_cpu_features_of(leaf[1], seven ? leaf[2] : none,
                               leaf[3].eax >= 0x80000001 ? leaf[4] : none,
                               leaf[3].eax >= 0x80000007 ? leaf[5] : none, xcr0);
}

static int run_probe(uint64_t *features, struct kit_kvm_refused *refused)
{
    const struct kit_cpuid leaves[PROBE_LEAVES] = {{.eax = 0},          {.eax = 1},
                                                   {.eax = 7},          {.eax = 0x80000000},
                                                   {.eax = 0x80000001}, {.eax = 0x80000007}};
    const struct kit_kvm_segment segments[] = {
        {KIT_KVM_MEMORY, vmm_probe_start, (uint64_t)(vmm_probe_end - vmm_probe_start), 4096,
         KIT_KVM_EXECUTABLE},
        {PROBE_DATA, (const uint8_t *)leaves, sizeof leaves, 4096, KIT_KVM_WRITABLE}};
    const struct kit_kvm_config config = {.segments = segments,
                                          .segment_count = KIT_ARRAY_SIZE(segments),
                                          .entry = KIT_KVM_MEMORY,
                                          .memory = 128 << 10};
    struct kit_kvm *vm = kit_kvm_new();
    if (vm == NULL)
        return vmm_refuse_host(refused, ENOMEM, "no memory for the probe guest");
    int rc = vmm_boot(vm, &config, 0, refused);
    if (rc != 0) {
        kit_kvm_close(vm);
        return rc;
    }
    char none[8];
    struct kit_kvm_report report;
    uint8_t answers[sizeof leaves + 8];
    kit_kvm_read(vm, none, sizeof none, 5000);
    kit_kvm_report(vm, &report);
    if (report.end != KIT_KVM_EXITED || report.code != 42)
        rc = vmm_refuse_host(refused, 0, "the probe guest did not run: %s",
                             report.end == KIT_KVM_RUNS ? "it did not end in 5 s" : report.text);
    else if (kit_kvm_peek(vm, PROBE_DATA, answers, sizeof answers) == 0)
        rc = vmm_refuse_host(refused, 0, "the probe guest left no answer");
    else
        /* CPUID may show the host's processor, but not what KVM took of it (CR4). */
        *features =
            features_from(answers) & ~(vmm_vcpu_sets_bases() ? 0 : (uint64_t)KIT_CPU_FSGSBASE);
    kit_kvm_close(vm);
    return rc;
}

int vmm_host_features(uint64_t *features, struct kit_kvm_refused *refused)
{
    static pthread_mutex_t probing = PTHREAD_MUTEX_INITIALIZER;
    pthread_mutex_lock(&probing);
    int rc = features_known ? 0 : run_probe(&known_features, refused);
    features_known = rc == 0;
    *features = known_features;
    pthread_mutex_unlock(&probing);
    return rc;
}

int kit_kvm_probe(struct kit_kvm_refused *refused)
{
    uint64_t features;
    int fd = vmm_host_open(refused);
    return fd < 0 ? fd : vmm_host_features(&features, refused);
}
