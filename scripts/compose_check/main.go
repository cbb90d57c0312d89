// Reads a Compose file as Docker Compose does, with the same library: its JSON schema, merges, interpolation, and
// what services say of each other. After the file come NAME=value, the variables it demands. Prints a line a service: its name, its profiles, where it is published.
package main

import (
	"context"
	"fmt"
	"os"
	"sort"

	"github.com/compose-spec/compose-go/v2/cli"
)

func main() {
	options, err := cli.NewProjectOptions(os.Args[1:2], cli.WithEnv(os.Args[2:]), cli.WithProfiles([]string{"*"}), cli.WithResolvedPaths(true))
	if err == nil {
		project, failed := options.LoadProject(context.Background())
		if err = failed; err == nil {
			names := project.ServiceNames()
			sort.Strings(names)
			for _, name := range names {
				service := project.Services[name]
				fmt.Print(name, " ", service.Profiles)
				for _, port := range service.Ports {
					fmt.Printf(" %s:%s:%d", port.HostIP, port.Published, port.Target)
				}
				fmt.Println()
			}
			return
		}
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}
