/** The frame around all pages of one who is signed in: navigation, header, live stream, palette, jobs under way. */
import { AppShell, Box, Burger, Group, Loader, Text, UnstyledButton } from "@mantine/core";
import { useDisclosure, useLocalStorage } from "@mantine/hooks";
import { Link, Outlet, useRouter } from "@tanstack/react-router";
import { Suspense, useEffect } from "react";
import { api, body } from "../api/client.ts";
import { meQuery, useMe } from "../api/me.ts";
import { queryClient, setOnSignedOut } from "../api/query-client.ts";
import { allProjects, currentScope } from "../api/scope.ts";
import { startLive } from "../live/live.ts";
import { OperationPanel } from "../ui/OperationWatch.tsx";
import { stringifySearch } from "../ui/search-state.ts";
import classes from "./Frame.module.css";
import { KeyboardHelp } from "./KeyboardHelp.tsx";
import { LiveBanner } from "./LiveBanner.tsx";
import { LiveDot } from "./LiveDot.tsx";
import { Logo } from "./Logo.tsx";
import { Nav } from "./Nav.tsx";
import { ProjectChoice } from "./ProjectChoice.tsx";
import { CommandPalette, PaletteButton } from "./palette/CommandPalette.tsx";
import { ThemeSwitch } from "./ThemeSwitch.tsx";
import { UserMenu } from "./UserMenu.tsx";

export function Frame() {
  const me = useMe();
  const router = useRouter();
  const [drawer, { toggle, close }] = useDisclosure(false);
  const [narrow, setNarrow] = useLocalStorage({
    key: "muster.nav.narrow",
    defaultValue: false,
    getInitialValueInEffect: false,
  });
  const operator = me.role === "admin";

  useEffect(() => {
    const all = operator ? { project: allProjects } : {};
    const onSignedOut = () => {
      // Several calls can find out at the same time.
      if (router.state.location.pathname === "/sign-in") return;
      queryClient.removeQueries(meQuery);
      void router.navigate({ to: "/sign-in", search: { back: router.state.location.href, why: "ended" } as never });
    };
    const unset = setOnSignedOut(onSignedOut);
    const stop = startLive({
      client: queryClient,
      url: `/v1/events${stringifySearch(all)}`,
      from: async () => (await body(api.GET("/v1/summary", { params: { query: all } }))).as_of,
      onSignedOut,
      locks: navigator.locks as LockManager | undefined,
    });
    return () => {
      unset();
      stop();
    };
  }, [operator, router]);

  useEffect(() => router.subscribe("onResolved", close), [router, close]);

  // What had the focus may be gone with the page before, for example the button of a form.
  useEffect(
    () =>
      router.subscribe("onRendered", ({ pathChanged }) => {
        if (!pathChanged || document.activeElement !== document.body) return;
        document.getElementById("main")?.focus({ preventScroll: true });
      }),
    [router],
  );

  return (
    <AppShell
      header={{ height: 48 }}
      navbar={{ width: narrow ? 56 : 208, breakpoint: "sm", collapsed: { mobile: !drawer } }}
      padding={{ base: "sm", md: "lg" }}
      transitionDuration={0}
    >
      <a className={classes.skip} href="#main">
        Skip to the page
      </a>
      <AppShell.Header className={classes.header}>
        <Group h="100%" px="sm" gap="xs" wrap="nowrap">
          <Burger opened={drawer} onClick={toggle} hiddenFrom="sm" size="sm" aria-label="Navigation" />
          <UnstyledButton
            renderRoot={(props) => <Link to="/" aria-label="Muster: overview" {...props} />}
            className={classes.brand}
          >
            <Logo />
            <Text fw={650} size="sm" visibleFrom="xs">
              Muster
            </Text>
          </UnstyledButton>
          {operator && <ProjectChoice />}
          <Box flex={1} />
          <PaletteButton />
          <LiveDot />
          <ThemeSwitch />
          <UserMenu me={me} />
        </Group>
      </AppShell.Header>
      <AppShell.Navbar className={classes.nav}>
        <Nav operator={operator} narrow={narrow && !drawer} onNarrow={setNarrow} />
      </AppShell.Navbar>
      <AppShell.Main id="main" tabIndex={-1} className={classes.main}>
        <LiveBanner />
        <Suspense fallback={<Loader size="sm" m="xl" aria-label="Loading the page" />}>
          {/* Another project is another world: its pages begin anew. */}
          <Outlet key={currentScope()} />
        </Suspense>
      </AppShell.Main>
      <OperationPanel />
      <CommandPalette operator={operator} />
      <KeyboardHelp operator={operator} />
    </AppShell>
  );
}
