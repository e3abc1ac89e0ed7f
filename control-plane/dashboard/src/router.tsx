/** Every address of the dashboard. Pages are loaded when they are first shown. */
import { Center, Loader } from "@mantine/core";
import {
  createRootRoute,
  createRoute,
  createRouter,
  Outlet,
  redirect,
  retainSearchParams,
} from "@tanstack/react-router";
import { ApiError } from "./api/client.ts";
import { meQuery } from "./api/me.ts";
import { queryClient } from "./api/query-client.ts";
import { allProjects, setScope } from "./api/scope.ts";
import { Frame } from "./app/Frame.tsx";
import { lazyPage } from "./app/parts.ts";
import { basePath } from "./base-path.ts";
import { ErrorPage } from "./ui/ErrorPage.tsx";
import { parseSearch, type Search, stringifySearch } from "./ui/search-state.ts";

/** The part of every URL that all pages share. */
interface SharedSearch {
  /** The project that an operator chose; all if left out. */
  project?: string;
  /** The project of the thing that the page shows, where all projects are chosen. */
  in?: string;
}

const one = (value: string | string[] | undefined) => (Array.isArray(value) ? value[0] : value);

const root = createRootRoute({ component: Outlet });

/** All pages of one who is signed in. Others are sent to the sign-in page, and back afterwards. */
const framed = createRoute({
  getParentRoute: () => root,
  id: "framed",
  component: Frame,
  validateSearch: (search: Record<string, unknown>): SharedSearch => search,
  search: { middlewares: [retainSearchParams(["project"])] },
  beforeLoad: async ({ location, search }) => {
    try {
      const me = await queryClient.ensureQueryData(meQuery);
      const shared = search as Search;
      if (me.role === "admin") setScope(one(shared.project) ?? allProjects, one(shared.in));
      else setScope(undefined, undefined);
    } catch (error) {
      if (!(error instanceof ApiError) || error.status !== 401) throw error;
      const back = location.href === "/" ? {} : { back: location.href };
      throw redirect({ to: "/sign-in", search: back as never });
    }
  },
});

const signIn = createRoute({
  getParentRoute: () => root,
  path: "/sign-in",
  component: lazyPage(() => import("./pages/sign-in/SignIn.tsx")),
});

const page = <const Path extends string>(path: Path, load: Parameters<typeof lazyPage>[0]) =>
  createRoute({ getParentRoute: () => framed, path, component: lazyPage(load) });

const routeTree = root.addChildren([
  signIn,
  framed.addChildren([
    page("/", () => import("./pages/overview/Overview.tsx")),
    page("/deployments", () => import("./pages/deployments/DeploymentList.tsx")),
    page("/deployments/new", () => import("./pages/deployments/DeploymentNew.tsx")),
    page("/deployments/$deployment", () => import("./pages/deployments/DeploymentDetail.tsx")),
    page("/instances", () => import("./pages/instances/InstanceList.tsx")),
    page("/instances/$instance", () => import("./pages/instances/InstanceDetail.tsx")),
    page("/disks", () => import("./pages/disks/DiskList.tsx")),
    page("/disks/$disk", () => import("./pages/disks/DiskDetail.tsx")),
    page("/images", () => import("./pages/images/ImageList.tsx")),
    page("/images/new", () => import("./pages/images/ImageNew.tsx")),
    page("/images/$image", () => import("./pages/images/ImageDetail.tsx")),
    page("/images/$image/chunks", () => import("./pages/images/ChunkMap.tsx")),
    page("/versions/$version", () => import("./pages/versions/VersionDetail.tsx")),
    page("/snapshots", () => import("./pages/snapshots/SnapshotList.tsx")),
    page("/snapshots/$snapshot", () => import("./pages/snapshots/SnapshotDetail.tsx")),
    page("/networks", () => import("./pages/networks/NetworkList.tsx")),
    page("/networks/$network", () => import("./pages/networks/NetworkDetail.tsx")),
    page("/security-groups", () => import("./pages/security-groups/SecurityGroupList.tsx")),
    page("/security-groups/$group", () => import("./pages/security-groups/SecurityGroupDetail.tsx")),
    page("/nodes", () => import("./pages/nodes/NodeList.tsx")),
    page("/nodes/$node", () => import("./pages/nodes/NodeDetail.tsx")),
    page("/pools/default", () => import("./pages/pool/PoolDetail.tsx")),
    page("/operations", () => import("./pages/operations/OperationList.tsx")),
    page("/operations/$operation", () => import("./pages/operations/OperationDetail.tsx")),
    page("/events", () => import("./pages/events/EventList.tsx")),
    page("/tokens", () => import("./pages/tokens/TokenList.tsx")),
    page("/projects", () => import("./pages/projects/ProjectList.tsx")),
    page("/$", () => import("./pages/NotFound.tsx")),
  ]),
]);

export const router = createRouter({
  routeTree,
  basepath: basePath,
  parseSearch,
  stringifySearch,
  scrollRestoration: true,
  defaultPreload: "intent",
  defaultPendingComponent: () => (
    <Center mih={240}>
      <Loader size="sm" aria-label="Loading" />
    </Center>
  ),
  defaultErrorComponent: ErrorPage,
});

declare module "@tanstack/react-router" {
  interface Register {
    router: typeof router;
  }
}
