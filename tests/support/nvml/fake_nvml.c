/* A stand-in for libnvidia-ml.so.1, so that the real pynvml and the real meter run on a machine without a GPU.
 *
 * The energy counter is watts x CLOCK_REALTIME since a base time: it runs on while no process has the library open, as
 * a driver's counter does. Settings come from the environment and, where FAKE_NVML_FILE names a file of `key=value`
 * lines, from that file, read anew at every call, so that a test can break a device under a running daemon:
 *
 *   watts        power of every device, default 250         (env FAKE_NVML_WATTS)
 *   base         Unix time at which the counter was 0, default 2026-01-01T00:00Z   (FAKE_NVML_BASE)
 *   devices       default 1                                 (FAKE_NVML_DEVICES)
 *   mig          1: MIG mode is on; instances: how many there are, default 2; slices: of each, default 3
 *   display      1: it drives a screen
 *   other_pid    a process that computes on it, with 2 GiB; used_gib: memory in use, default 1
 *   cores, mhz, capability   default 6912, 1410, 8.0: an A100
 *   bursts       watts of a burst: of every tenth of a second since `base` three in ten are one, by `is_burst`, the others draw `watts`;
 *                default 0: no bursts   (FAKE_NVML_BURSTS)
 *   no_counter   1: as a board before Volta               (FAKE_NVML_NO_COUNTER)
 *   name         a word, default "Fake GPU"                 (FAKE_NVML_NAME)
 *   lock_code    what setting or resetting locked clocks answers, default 0; fixed_share: of a board's power that its clock does
 *                not move, default 0.4. FAKE_NVML_STATE names a folder that keeps what the driver keeps when no process has
 *                it open: the locked clock of each board, and its counter at that moment. Power is
 *                watts x (fixed_share + (1 - fixed_share) x (clock / mhz)^3)
 *   screen_pid   a process that draws on it
 *   any key with .N behind it holds for device N alone
 *   FAKE_NVML_SCRIPT names a file that is mapped: what counters and powers answer then comes from there alone, as the test sets it
 *                (struct script; `tests/support/scripted_box.py` writes it). FAKE_NVML_LOG names a file that gets what the counters
 *                answered, read by read (struct answer)
 *   init_code, handle_code, energy_code, power_code        NVML return codes, default 0; init_code: no driver
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

typedef int nvmlReturn_t;
typedef struct device { int index; } *nvmlDevice_t;
typedef struct { unsigned long long total, free, used; } nvmlMemory_t;

static struct device devices[16];
/* an instance of MIG: index of its board * 100 + 100 + its own */
static struct device instances[1800];

/* What every device answers, where the test says it read by read. */
typedef struct { unsigned long long energy_mj; unsigned int power_mw; int code; } read_t;
typedef struct { long long wall_us, boot_us; long long driver_code; read_t reads[16]; } script_t;

static const script_t *script(void)
{
    static const script_t *mapped;
    const char *path = getenv("FAKE_NVML_SCRIPT");
    if (path && !mapped) {
        int file = open(path, O_RDONLY);
        void *found = mmap(NULL, sizeof *mapped, PROT_READ, MAP_SHARED, file, 0);
        if (file < 0 || found == MAP_FAILED)
            abort();
        mapped = found;
    }
    return mapped;
}

typedef struct { long long wall_us; unsigned long long energy_mj; int index, code; } answer_t;

static int told(int index, unsigned long long energy_mj, int code)
{
    static int log = -1;
    const char *path = getenv("FAKE_NVML_LOG");
    answer_t answer = {script()->wall_us, energy_mj, index, code};
    if (path && log < 0)
        log = open(path, O_WRONLY | O_CREAT | O_APPEND, 0644);
    if (path && write(log, &answer, sizeof answer) != (ssize_t)sizeof answer)
        abort();
    return code;
}

static double setting(const char *key, const char *env, double fallback)
{
    const char *path = getenv("FAKE_NVML_FILE");
    FILE *file = path ? fopen(path, "r") : NULL;
    char line[256];
    size_t n = strlen(key);
    double value = env && getenv(env) ? atof(getenv(env)) : fallback;
    while (file && fgets(line, sizeof line, file))
        if (!strncmp(line, key, n) && line[n] == '=')
            value = atof(line + n + 1);
    if (file)
        fclose(file);
    return value;
}

static double of(int index, const char *key, const char *env, double fallback)
{
    char own[64];
    snprintf(own, sizeof own, "%s.%d", key, index);
    return setting(own, NULL, setting(key, env, fallback));
}

static double watts(void) { return setting("watts", "FAKE_NVML_WATTS", 250.0); }

/* A driver that goes away (init_code is not 0) takes every open handle with it: code 1 until NVML is opened anew. */
static int is_open;

static int driver_code(void)
{
    return script() ? (int)script()->driver_code : (int)setting("init_code", NULL, 0);
}

static nvmlReturn_t reach(const char *code_key, int index)
{
    if (script()) {
        is_open = is_open && !driver_code();
        return is_open ? script()->reads[index % 16].code : 1;
    }
    if (setting("init_code", NULL, 0) != 0)
        is_open = 0;
    return is_open ? (int)of(index, code_key, NULL, 0) : 1;
}

nvmlReturn_t nvmlInitWithFlags(unsigned int flags)
{
    int code = driver_code();
    (void)flags;
    is_open = code == 0;
    return code;
}
nvmlReturn_t nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
nvmlReturn_t nvmlShutdown(void) { is_open = 0; return 0; }
const char *nvmlErrorString(nvmlReturn_t code) { (void)code; return "fake"; }

nvmlReturn_t nvmlDeviceGetCount_v2(unsigned int *count)
{
    *count = (unsigned int)setting("devices", "FAKE_NVML_DEVICES", 1);
    return 0;
}

nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned int index, nvmlDevice_t *device)
{
    devices[index].index = (int)index;
    *device = &devices[index];
    return reach("handle_code", (int)index);
}

nvmlReturn_t nvmlDeviceGetHandleByUUID(const char *uuid, nvmlDevice_t *device)
{
    return nvmlDeviceGetHandleByIndex_v2((unsigned int)atoi(uuid + strlen(uuid) - 3), device);
}

nvmlReturn_t nvmlDeviceGetUUID(nvmlDevice_t device, char *uuid, unsigned int length)
{
    if (device->index >= 100)
        snprintf(uuid, length, "MIG-00000000-fake-0000-0000-%012d", device->index - 100);
    else
        snprintf(uuid, length, "GPU-00000000-fake-0000-0000-%012d", device->index);
    return 0;
}

nvmlReturn_t nvmlDeviceGetName(nvmlDevice_t device, char *name, unsigned int length)
{
    const char *path = getenv("FAKE_NVML_FILE");
    FILE *file = path ? fopen(path, "r") : NULL;
    char line[256], key[32];
    snprintf(name, length, "%s", getenv("FAKE_NVML_NAME") ? getenv("FAKE_NVML_NAME") : "Fake GPU");
    snprintf(key, sizeof key, "name.%d=", device->index);
    while (file && fgets(line, sizeof line, file))
        if (!strncmp(line, key, strlen(key)))
            snprintf(name, length, "%.*s", (int)strcspn(line + strlen(key), "\n"), line + strlen(key));
    if (file)
        fclose(file);
    return 0;
}

nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t device, nvmlMemory_t *memory)
{
    memory->total = 80ULL << 30;
    memory->used = (unsigned long long)(of(device->index, "used_gib", NULL, 1) * (1ULL << 30));
    memory->free = memory->total - memory->used;
    return 0;
}

nvmlReturn_t nvmlDeviceGetMigMode(nvmlDevice_t device, unsigned int *current, unsigned int *pending)
{
    *current = *pending = (unsigned int)of(device->index, "mig", NULL, 0);
    return 0;
}

nvmlReturn_t nvmlDeviceGetMaxMigDeviceCount(nvmlDevice_t device, unsigned int *count)
{
    (void)device;
    *count = 7;
    return 0;
}

nvmlReturn_t nvmlDeviceGetMigDeviceHandleByIndex(nvmlDevice_t device, unsigned int index, nvmlDevice_t *instance)
{
    int own = device->index * 100 + 100 + (int)index;
    if (index >= (unsigned int)setting("instances", NULL, 2))
        return 6;
    instances[own].index = own;
    *instance = &instances[own];
    return 0;
}

typedef struct {
    unsigned int multiprocessors, copy, decoder, encoder, jpeg, ofa, gpu_slices, compute_slices;
    unsigned long long memory_mb;
} attributes_t;

nvmlReturn_t nvmlDeviceGetAttributes_v2(nvmlDevice_t device, attributes_t *attributes)
{
    memset(attributes, 0, sizeof *attributes);
    attributes->gpu_slices = attributes->compute_slices = (unsigned int)of(device->index, "slices", NULL, 3);
    return 0;
}

nvmlReturn_t nvmlDeviceGetDisplayActive(nvmlDevice_t device, unsigned int *active)
{
    *active = (unsigned int)of(device->index, "display", NULL, 0);
    return 0;
}

typedef struct { unsigned int pid; unsigned long long used; unsigned int gpu_instance, compute_instance; } process_t;

static nvmlReturn_t one_process(const char *key, nvmlDevice_t device, unsigned int *count, process_t *found)
{
    unsigned int pid = (unsigned int)of(device->index, key, NULL, 0), room = *count;
    *count = pid ? 1 : 0;
    if (!pid)
        return 0;
    if (room < 1 || !found)
        return 7;
    found[0] = (process_t){.pid = pid, .used = 2ULL << 30};
    return 0;
}

nvmlReturn_t nvmlDeviceGetComputeRunningProcesses_v3(nvmlDevice_t device, unsigned int *count, process_t *found)
{
    return one_process("other_pid", device, count, found);
}

nvmlReturn_t nvmlDeviceGetGraphicsRunningProcesses_v3(nvmlDevice_t device, unsigned int *count, process_t *found)
{
    return one_process("screen_pid", device, count, found);
}

nvmlReturn_t nvmlDeviceGetNumGpuCores(nvmlDevice_t device, unsigned int *cores)
{
    *cores = (unsigned int)of(device->index, "cores", NULL, 6912);
    return 0;
}

nvmlReturn_t nvmlDeviceGetMaxClockInfo(nvmlDevice_t device, unsigned int kind, unsigned int *mhz)
{
    (void)kind;
    *mhz = (unsigned int)of(device->index, "mhz", NULL, 1410);
    return 0;
}

nvmlReturn_t nvmlDeviceGetCudaComputeCapability(nvmlDevice_t device, int *major, int *minor)
{
    double capability = of(device->index, "capability", NULL, 8.0);
    *major = (int)capability;
    *minor = (int)(capability * 10 + 0.5) % 10;
    return 0;
}

nvmlReturn_t nvmlDeviceGetEnforcedPowerLimit(nvmlDevice_t device, unsigned int *milliwatts)
{
    (void)device;
    *milliwatts = 700000;
    return 0;
}

/* ---- locked clocks, which the driver keeps while no process has it open */

typedef struct { unsigned int mhz; double since, joules; } lock_t;

static int lock_path(int index, char *path, size_t size)
{
    const char *folder = getenv("FAKE_NVML_STATE");
    if (folder)
        snprintf(path, size, "%s/clocks.%d", folder, index);
    return folder != NULL;
}

static lock_t locked(int index)
{
    lock_t found = {0, setting("base", "FAKE_NVML_BASE", 1767225600.0), 0};
    char path[512];
    FILE *file = lock_path(index, path, sizeof path) ? fopen(path, "r") : NULL;
    if (file) {
        if (fscanf(file, "%u %lf %lf", &found.mhz, &found.since, &found.joules) != 3)
            found.mhz = 0;
        fclose(file);
    }
    return found;
}

static double wall(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static double watts_at(int index, unsigned int mhz)
{
    double most = of(index, "mhz", NULL, 1410), fixed = of(index, "fixed_share", NULL, 0.4);
    double x = mhz && mhz < most ? mhz / most : 1;
    return watts() * (fixed + (1 - fixed) * x * x * x);
}

/* The same in benchmarks/meters.py, which knows the truth. */
static int is_burst(unsigned int tenth)
{
    unsigned int x = tenth * 2654435761u;
    x ^= x >> 15;
    x *= 2246822519u;
    x ^= x >> 13;
    return x % 10 < 3;
}

static double bursts(void) { return setting("bursts", "FAKE_NVML_BURSTS", 0.0); }

static double burst_joules(double since, double now, double idle, double burst)
{
    static unsigned int known, count;
    unsigned int tenth = (unsigned int)((now - since) * 10);
    double rest = now - since - tenth / 10.0;
    for (; known < tenth; known++)
        count += is_burst(known);
    return (count * burst + (tenth - count) * idle) / 10 + rest * (is_burst(tenth) ? burst : idle);
}

static double joules_of(int index, double now)
{
    lock_t lock = locked(index);
    double burst = bursts();
    if (burst > 0)
        return burst_joules(lock.since, now, watts(), burst);
    return lock.joules + (now - lock.since) * watts_at(index, lock.mhz);
}

static nvmlReturn_t keep_lock(int index, unsigned int mhz)
{
    int code = reach("lock_code", index);
    char path[512], fresh[520];
    double now = wall(), joules = joules_of(index, now);
    FILE *file;
    if (code)
        return code;
    if (!lock_path(index, path, sizeof path))
        return 3;
    snprintf(fresh, sizeof fresh, "%s.new", path);
    file = fopen(fresh, "w");
    if (!file)
        return 999;
    fprintf(file, "%u %.9f %.9f\n", mhz, now, joules);
    fclose(file);
    return rename(fresh, path) ? 999 : 0;
}

nvmlReturn_t nvmlDeviceSetGpuLockedClocks(nvmlDevice_t device, unsigned int least, unsigned int most)
{
    return least > most ? 2 : keep_lock(device->index, most);
}

nvmlReturn_t nvmlDeviceResetGpuLockedClocks(nvmlDevice_t device) { return keep_lock(device->index, 0); }

nvmlReturn_t nvmlDeviceGetSupportedMemoryClocks(nvmlDevice_t device, unsigned int *count, unsigned int *mhz)
{
    unsigned int room = *count;
    (void)device;
    *count = 1;
    if (room < 1 || !mhz)
        return 7;
    mhz[0] = 1593;
    return 0;
}

/* From mhz down in steps of 15 to 210, as an A100 lists them. */
nvmlReturn_t nvmlDeviceGetSupportedGraphicsClocks(nvmlDevice_t device, unsigned int memory, unsigned int *count, unsigned int *mhz)
{
    unsigned int most = (unsigned int)of(device->index, "mhz", NULL, 1410), room = *count, n = (most - 210) / 15 + 1, i;
    if (memory != 1593)
        return 6;
    *count = n;
    if (room < n || !mhz)
        return 7;
    for (i = 0; i < n; i++)
        mhz[i] = most - 15 * i;
    return 0;
}

static unsigned int power_mw(int index)
{
    lock_t lock = locked(index);
    if (bursts() > 0)
        return (unsigned int)((is_burst((unsigned int)((wall() - lock.since) * 10)) ? bursts() : watts()) * 1000);
    return (unsigned int)(watts_at(index, lock.mhz) * 1000);
}

nvmlReturn_t nvmlDeviceGetPowerUsage(nvmlDevice_t device, unsigned int *milliwatts)
{
    if (script()) {
        *milliwatts = script()->reads[device->index].power_mw;
        return reach("power_code", device->index);
    }
    *milliwatts = power_mw(device->index);
    return reach("power_code", device->index);
}

nvmlReturn_t nvmlDeviceGetTotalEnergyConsumption(nvmlDevice_t device, unsigned long long *millijoules)
{
    if (script()) {
        *millijoules = script()->reads[device->index].energy_mj;
        return told(device->index, *millijoules, reach("energy_code", device->index));
    }
    if (setting("no_counter", "FAKE_NVML_NO_COUNTER", 0))
        return 3;
    *millijoules = (unsigned long long)(joules_of(device->index, wall()) * 1000);
    return reach("energy_code", device->index);
}

/* ---- what other tools ask beside: codecarbon, Zeus */

nvmlReturn_t nvmlDeviceGetArchitecture(nvmlDevice_t device, unsigned int *architecture)
{
    (void)device;
    *architecture = setting("no_counter", "FAKE_NVML_NO_COUNTER", 0) ? 4 : 7; /* Pascal, Ampere */
    return 0;
}

nvmlReturn_t nvmlDeviceGetTemperature(nvmlDevice_t device, int sensor, unsigned int *celsius)
{
    (void)device, (void)sensor;
    *celsius = 50;
    return 0;
}

nvmlReturn_t nvmlDeviceGetUtilizationRates(nvmlDevice_t device, unsigned int *gpu_and_memory)
{
    (void)device;
    gpu_and_memory[0] = 50;
    gpu_and_memory[1] = 10;
    return 0;
}

nvmlReturn_t nvmlDeviceGetComputeMode(nvmlDevice_t device, int *mode)
{
    (void)device;
    *mode = 0;
    return 0;
}

typedef struct {
    unsigned int id, scope;
    long long timestamp, latency_us;
    int value_type, code;
    union { double d; unsigned int ui; unsigned long long ull; } value;
} field_t;

/* Of all fields the power at this instant, alone. */
nvmlReturn_t nvmlDeviceGetFieldValues(nvmlDevice_t device, int count, field_t *fields)
{
    for (int i = 0; i < count; i++) {
        fields[i].code = fields[i].id == 186 ? 0 : 3;
        fields[i].value_type = 1;
        fields[i].value.ui = power_mw(device->index);
    }
    return 0;
}
