// Preloaded into a server, it lets whoever likes set that server's wall clock
// while it runs: the file that WALL_CLOCK names holds the seconds (8 bytes, of
// this machine's order) by which it is wrong. Clocks that only run are left alone.
//
// Programs read clocks through code that the kernel maps into them (the vDSO),
// partly past the C library: so that code's first instructions become a jump to
// here.
#define _GNU_SOURCE
#include <elf.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#ifndef __x86_64__
#error "the jump is written for x86-64 alone"
#endif

static const volatile int64_t *wrong_by;

static int set_clock(clockid_t id, struct timespec *now) {
	int result = (int)syscall(SYS_clock_gettime, id, now);
	if (result == 0 && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE))
		now->tv_sec += *wrong_by;
	return result;
}

static int set_day(struct timeval *now, void *zone) {
	struct timespec precise;
	(void)zone;
	if (now == NULL || set_clock(CLOCK_REALTIME, &precise) != 0)
		return -1;
	now->tv_sec = precise.tv_sec;
	now->tv_usec = precise.tv_nsec / 1000;
	return 0;
}

static time_t set_time(time_t *into) {
	struct timespec now;
	if (set_clock(CLOCK_REALTIME, &now) != 0)
		return -1;
	if (into)
		*into = now.tv_sec;
	return now.tv_sec;
}

// Writes `mov rax, to; jmp rax`.
static void jump(unsigned char *from, uint64_t to) {
	unsigned char code[12] = {0x48, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xe0};
	memcpy(code + 2, &to, sizeof to);
	memcpy(from, code, sizeof code);
}

// Lets the vDSO's functions lead here. False: it is not as expected.
static int lead_here(void) {
	unsigned char *base = (unsigned char *)getauxval(AT_SYSINFO_EHDR);
	if (base == NULL)
		return 0;
	const Elf64_Ehdr *head = (const Elf64_Ehdr *)base;
	const Elf64_Phdr *parts = (const Elf64_Phdr *)(base + head->e_phoff);
	const Elf64_Dyn *entry = NULL;
	uint64_t size = 0;
	for (int i = 0; i < head->e_phnum; i++) {
		if (parts[i].p_type == PT_LOAD)
			size = parts[i].p_vaddr + parts[i].p_memsz;
		else if (parts[i].p_type == PT_DYNAMIC)
			entry = (const Elf64_Dyn *)(base + parts[i].p_vaddr);
	}
	const Elf64_Sym *symbols = NULL;
	const char *names = NULL;
	for (; entry != NULL && entry->d_tag != DT_NULL; entry++) {
		if (entry->d_tag == DT_SYMTAB)
			symbols = (const Elf64_Sym *)(base + entry->d_un.d_ptr);
		else if (entry->d_tag == DT_STRTAB)
			names = (const char *)(base + entry->d_un.d_ptr);
	}
	long page = sysconf(_SC_PAGESIZE);
	size = (size + page - 1) / page * page;
	if (symbols == NULL || names == NULL || mprotect(base, size, PROT_READ | PROT_WRITE | PROT_EXEC) != 0)
		return 0;
	int found = 0;
	// The strings follow the symbols.
	for (const Elf64_Sym *s = symbols + 1; (const char *)s < names; s++) {
		const char *name = names + s->st_name;
		if (ELF64_ST_TYPE(s->st_info) != STT_FUNC)
			continue;
		if (strcmp(name, "__vdso_clock_gettime") == 0) {
			jump(base + s->st_value, (uint64_t)set_clock);
			found = 1;
		} else if (strcmp(name, "__vdso_gettimeofday") == 0) {
			jump(base + s->st_value, (uint64_t)set_day);
		} else if (strcmp(name, "__vdso_time") == 0) {
			jump(base + s->st_value, (uint64_t)set_time);
		}
	}
	mprotect(base, size, PROT_READ | PROT_EXEC);
	return found;
}

__attribute__((constructor)) static void begin(void) {
	const char *path = getenv("WALL_CLOCK");
	int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
	if (fd < 0)
		return;
	void *shared = mmap(NULL, sizeof *wrong_by, PROT_READ, MAP_SHARED, fd, 0);
	close(fd);
	if (shared == MAP_FAILED)
		return;
	wrong_by = shared;
	if (!lead_here()) {
		static const char sorry[] = "wallclock: the vDSO cannot be led here\n";
		(void)!write(2, sorry, sizeof sorry - 1);
	}
}
