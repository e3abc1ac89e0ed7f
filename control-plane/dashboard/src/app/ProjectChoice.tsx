import { Button, Menu } from "@mantine/core";
import { IconCheck, IconChevronDown, IconFolder, IconFolders } from "@tabler/icons-react";
import { useRouter } from "@tanstack/react-router";
import { useProjects } from "../api/projects.ts";
import { allProjects, currentScope } from "../api/scope.ts";
import { useCommands } from "../commands/registry.ts";
import classes from "./ProjectChoice.module.css";

/** Which project an operator looks at. The choice is part of the URL. */
export function ProjectChoice() {
  const router = useRouter();
  const projects = useProjects();
  const chosen = currentScope() || allProjects;
  const names = [...new Set([...projects, ...(chosen === allProjects ? [] : [chosen])])].sort();
  const choose = (project: string) => {
    // A page about one thing is about a thing of one project: another choice leads to the list it came from.
    const [, list = ""] = router.state.location.pathname.split("/");
    void router.navigate({ to: `/${list}`, search: (project === allProjects ? {} : { project }) as never });
  };
  const label = (project: string) => (project === allProjects ? "All projects" : project);
  useCommands(
    () =>
      [allProjects, ...names].map((name) => ({
        id: `project ${name}`,
        title: name === allProjects ? "Show all projects" : `Show project ${name}`,
        general: true,
        run: () => choose(name),
      })),
    [names.join()],
  );
  return (
    <Menu position="bottom-start" shadow="md">
      <Menu.Target>
        <Button
          variant="default"
          size="xs"
          maw={190}
          leftSection={chosen === allProjects ? <IconFolders size={14} /> : <IconFolder size={14} />}
          rightSection={<IconChevronDown size={13} />}
          aria-label={`Project: ${label(chosen)}`}
        >
          {chosen === allProjects ? (
            <>
              All<span className={classes.wide}>&nbsp;projects</span>
            </>
          ) : (
            chosen
          )}
        </Button>
      </Menu.Target>
      <Menu.Dropdown mah={400} style={{ overflowY: "auto" }}>
        {[allProjects, ...names].map((name) => (
          <Menu.Item
            key={name}
            onClick={() => choose(name)}
            rightSection={name === chosen ? <IconCheck size={14} /> : null}
          >
            {label(name)}
          </Menu.Item>
        ))}
      </Menu.Dropdown>
    </Menu>
  );
}
