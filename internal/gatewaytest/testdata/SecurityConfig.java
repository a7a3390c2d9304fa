@Bean
SecurityFilterChain api(HttpSecurity http) throws Exception {
    return http
        .authorizeHttpRequests(requests -> requests
            .requestMatchers("/reports/**").hasAuthority("SCOPE_reports.read")
            .requestMatchers("/billing/**").hasAuthority("SCOPE_billing.write")
            .anyRequest().denyAll())
        .oauth2ResourceServer(server -> server.opaqueToken(Customizer.withDefaults()))
        .build();
}
