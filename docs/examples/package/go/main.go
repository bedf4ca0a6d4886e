package main

import (
	"github.com/pulumi/pulumi/sdk/v3/go/pulumi"
	"github.com/pulumi/pulumi/sdk/v3/go/pulumi/config"

	"example.com/pulumi-canary/sdk/go/canary"
)

func main() {
	pulumi.Run(func(ctx *pulumi.Context) error {
		settings := config.New(ctx, "")
		checkout, err := canary.NewCanaryService(ctx, "checkout", &canary.CanaryServiceArgs{
			Namespace: pulumi.String("shop"),
			Host:      pulumi.String("shop.example"),
			Path:      pulumi.String("/checkout"),
			Port:      pulumi.Int(8080),
			Image:     pulumi.String("registry.example/checkout:1.4.2"),
			Env:       pulumi.StringMap{"DATABASE": settings.RequireSecret("database")},
			Canary: &canary.CanaryArgs{
				Image:  pulumi.String("registry.example/checkout:1.5.0"),
				Weight: pulumi.Int(20),
			},
		})
		if err != nil {
			return err
		}
		ctx.Export("url", checkout.Url)
		return nil
	})
}
